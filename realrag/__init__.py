"""RealRAG: find real photos for a prompt, and condition image generators on them (arXiv 2502.00848)."""

__version__ = "0.1.0"
