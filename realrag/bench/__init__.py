"""What `realrag bench` measures: search, embedding and injection, as ratios within one run."""
