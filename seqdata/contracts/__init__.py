"""What is stored, typed: tables, frame records, manifests and protocols."""
