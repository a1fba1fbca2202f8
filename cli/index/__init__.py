"""Commands around indexes: index, versions, search, pack."""
