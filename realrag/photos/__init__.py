"""Folders of photos and the words beside them -> decoded pictures and credits. Knows no encoder and no bundle."""
