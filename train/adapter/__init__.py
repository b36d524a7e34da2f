"""Trains reference adapters: small networks that let photos steer a frozen SD3 or Flux, in layouts that RealRAG reads."""
