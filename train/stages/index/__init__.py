"""Build an index from a trained run: descriptors of samples, of the database, of shares, of additions."""
