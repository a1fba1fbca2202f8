"""Predictions, recall with intervals, and comparison of descriptors of any origin."""
