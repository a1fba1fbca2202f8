"""Small synthetic dumps, rendered and written in their real layouts: what `make demo` and the tests run on."""

from seqdata.synth.along import Track, city_along, read_track
from seqdata.synth.msls import write_msls
from seqdata.synth.nordland import NordlandSettings, NordlandSummary, write_nordland
from seqdata.synth.robotcar import RobotcarSettings, RobotcarSummary, write_robotcar
from seqdata.synth.settings import DEMO_CITIES, CityPlan, CitySettings, CitySummary

__all__ = [
    "DEMO_CITIES",
    "CityPlan",
    "CitySettings",
    "CitySummary",
    "NordlandSettings",
    "NordlandSummary",
    "RobotcarSettings",
    "RobotcarSummary",
    "Track",
    "city_along",
    "read_track",
    "write_msls",
    "write_nordland",
    "write_robotcar",
]
