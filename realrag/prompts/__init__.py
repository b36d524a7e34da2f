"""Prompts as artists write them -> plain words, the objects they name, and what they leave out. Knows no photo and no encoder."""
