"""`realrag bench`: measurements of search, embedding and injection, as ratios within one run."""
