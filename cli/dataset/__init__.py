"""Commands around datasets: build, info, sequences, leakage, export, versions."""
