"""The measurements of one cell of an experiment."""
