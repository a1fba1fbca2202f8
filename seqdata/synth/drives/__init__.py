"""Drives through the synthetic city, and streets laid along a recorded track."""
