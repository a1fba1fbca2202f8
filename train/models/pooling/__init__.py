"""Pooling of one frame's tokens into its vector, or into its VLAD sums."""
