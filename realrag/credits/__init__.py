"""Credits inside a finished picture: what is written, and how it is read back. No node and no command line may enter."""
