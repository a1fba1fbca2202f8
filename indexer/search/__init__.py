"""Nearest rows of a database: exact and approximate kinds, on CPUs and GPUs."""
