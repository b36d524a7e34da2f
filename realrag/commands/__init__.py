"""The command line `realrag`: arguments in, words and exit codes out. Nothing may import it."""
