"""From a feature map of one frame to its vector or to its VLAD residuals."""
