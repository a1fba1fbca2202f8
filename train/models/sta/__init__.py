"""The spatio-temporal attention descriptor."""
