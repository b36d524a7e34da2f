"""The claim, measured: a procedural world with a registered split, and the experiment that compares retrievers on it."""
