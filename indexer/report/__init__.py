"""Self-contained offline HTML pages about retrieval: no script, no network, one file."""
