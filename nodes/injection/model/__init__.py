"""References inside the model: wrappers and patches on a clone, one file an adapter family. Knows no node."""
