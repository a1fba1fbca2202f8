"""A run's folder: settings, checkpoints, training state and what other commands need to know of it."""
