"""Weights that the papers' programs released, read as whole runs of this program."""
