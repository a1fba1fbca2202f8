"""Which windows a training step sees: regimes, mined triplets, place batches, pairs."""
