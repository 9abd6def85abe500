"""Models larger than the memory and work longer than an evening: checkpoints that stay on disk, resuming, clusters."""
