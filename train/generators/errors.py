"""The error of every generator."""

from realrag.errors import RealRAGError


class GeneratorError(RealRAGError):
    """A generator cannot be reached, refuses the workflow, or returns no picture."""


class DrawingFailed(GeneratorError):
    """One picture could not be drawn; others may."""
