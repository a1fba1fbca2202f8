"""Build, append to and merge place indexes."""
