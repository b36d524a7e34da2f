"""Did the painted pictures get better? References for each arm, figures with intervals, and votes of people."""
