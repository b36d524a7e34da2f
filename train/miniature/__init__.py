"""Trains the miniature models of realrag/miniature."""
