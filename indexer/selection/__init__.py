"""Choose and measure the kind of an index on held-out queries."""
