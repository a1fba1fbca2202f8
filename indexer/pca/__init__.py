"""PCA: moments of a sample, eigenvectors, the stored transform and its application."""
