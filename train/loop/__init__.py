"""What every training shares: checkpoint, schedule, watch and stop, stages, ranks and progress. No model enters."""
