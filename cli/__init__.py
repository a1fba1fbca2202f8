"""The `seqdata` command: options, terminal output and exit codes; no domain logic."""
