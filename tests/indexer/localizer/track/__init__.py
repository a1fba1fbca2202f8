"""Tests of recordings and tracks."""
