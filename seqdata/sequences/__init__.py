"""Windows of frames and their ground truth: spacing, cutting, positives and distances."""
