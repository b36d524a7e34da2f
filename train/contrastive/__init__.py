"""Self-reflective contrastive learning (paper, sec. 3.3, eq. 5-8): loss, material, the fitting of a head or of a tower."""
