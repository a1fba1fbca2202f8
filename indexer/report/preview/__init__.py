"""The preview of a dataset: pictures, maps, histograms, what was left out, and counts beside what is expected."""
