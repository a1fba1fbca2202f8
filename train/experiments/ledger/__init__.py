"""The ledger of an experiment: each cell beside the value that the paper prints."""
