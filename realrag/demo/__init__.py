"""What `realrag demo` shows: the shipped photos indexed, asked, and painted by the miniatures."""
