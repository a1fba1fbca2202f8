"""Time and memory: models, feature extraction and matching."""
