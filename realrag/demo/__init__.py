"""`realrag demo`: indexes the shipped photos, searches them, and paints with the miniatures."""
