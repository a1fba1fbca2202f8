"""Losses on window descriptors: triplet, and losses of place batches over pair masks."""
