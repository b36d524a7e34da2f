"""Credits inside a finished picture: what is written, how it is read back, and how it is signed. No node and no command line may enter."""
