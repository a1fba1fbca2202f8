"""Self-contained offline HTML pages about datasets and retrieval: no network, one file, no script but our own by its hash."""
