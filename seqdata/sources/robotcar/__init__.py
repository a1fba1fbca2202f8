"""Oxford RobotCar: folders of laps, their poses, and Bayer pictures."""
