"""The synthetic camera: lens, pose, and rendering of what it sees."""
