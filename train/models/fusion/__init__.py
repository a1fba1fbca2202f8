"""From the vectors of L frames to one sequence descriptor."""
