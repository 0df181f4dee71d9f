"""What makes a training repeatable: seeds, order of samples, fixed sums, checkpoints."""
