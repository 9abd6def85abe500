"""Floor 2: models larger than the memory, work longer than an evening: checkpoints on disk, resuming, clusters."""
