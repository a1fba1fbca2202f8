"""Mapillary Street-Level Sequences: city folders or zips with their tables."""
