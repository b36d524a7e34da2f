"""Builds what `realrag` uses: encoders, reflective heads and their measurements. Nothing imports this package."""
