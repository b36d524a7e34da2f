"""Build Reference Library, Library Info: photos of the artist's own -> a library in models/realrag."""
