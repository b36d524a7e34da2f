"""RealRAG: find real photos for a prompt, and condition image generators on them (arXiv 2502.00848)."""

__version__ = "0.1.0"
# The encoder that ships with the package; named here so that the command line can say so without loading torch.
DEFAULT_ENCODER = "realrag-small"
