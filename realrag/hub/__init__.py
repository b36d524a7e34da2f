"""Bundles to and from a model hub. The only room that opens a connection; nothing in `nodes` may import it."""
