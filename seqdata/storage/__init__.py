"""Bytes in and out: atomic files, hashes, Parquet, tar, locks, and stores that lie at a URL."""
