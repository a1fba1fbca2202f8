"""Stages that read tables alone, at millions of frames without a pixel: `make scale` (see docs/scale.md)."""
