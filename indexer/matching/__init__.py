"""Sequence matching on frame descriptors: aligned, SeqSLAM, delta, re-ranking."""
