"""What goes wrong while a generator draws."""

from realrag.errors import RealRAGError


class GeneratorError(RealRAGError):
    """A generator that cannot be reached, refuses the workflow, or gives no picture."""
