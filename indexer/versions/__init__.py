"""Versions of an index on disk: manifests, tags, locks, publishing, checks."""
