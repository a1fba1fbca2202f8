"""Writers of synthetic dumps in the layouts of MSLS, RobotCar and Nordland."""
