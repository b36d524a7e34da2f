"""Miniature SD3 and Flux models in the layouts of the real ones, with the text side and the autoencoder they share."""
