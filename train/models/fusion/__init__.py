"""Fusion of the features of L frames into one sequence descriptor."""
