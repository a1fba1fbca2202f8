"""Early fusion: encoders that see the L frames at once."""
