"""Nordland: four seasons of one railway line, by frame number, with the summer's GPS log."""
