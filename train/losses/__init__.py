"""Losses over descriptors: triplet, multi-similarity, contrastive."""
