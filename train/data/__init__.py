"""Frames and stored features as a model takes them, and descriptors as it gives them."""
