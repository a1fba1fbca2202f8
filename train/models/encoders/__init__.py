"""Image encoders: timm's and CCT, their weights, input sizes and preprocessing."""
