"""What the injection nodes are given -> checked settings and encoded references. Touches no model."""
