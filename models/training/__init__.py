"""What all trained models share: batches, training loops, checkpoints."""
