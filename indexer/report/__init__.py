"""Offline HTML pages about datasets and retrieval: one file, no network, no script but our own, by its hash."""
