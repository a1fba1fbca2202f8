"""The version of this program, as manifests record it and `seqdata.__version__` gives it."""

VERSION = "0.1.0"
