"""Trains and measures the miniature models of realrag/miniature. Adapters are trained in train/adapter."""
