"""The command `votes`: which pictures people prefer."""
