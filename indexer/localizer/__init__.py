"""Localization on a robot: a packed model and index, from images to places."""
