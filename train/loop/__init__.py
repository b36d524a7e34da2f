"""What every training shares: ranks, stages, progress, checkpoints and the end. Knows no model."""
