"""HTML pages: templates, and what puts figures and pictures into them. Knows no figure and no command."""
