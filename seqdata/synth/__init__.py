"""Small synthetic dumps, rendered and written in their real layouts: what `make demo` and the tests run on."""

from seqdata.synth.drives.along import city_along, read_track
from seqdata.synth.dumps.msls import write_msls
from seqdata.synth.dumps.nordland import NordlandSettings, NordlandSummary, write_nordland
from seqdata.synth.dumps.robotcar import RobotcarSettings, RobotcarSummary, write_robotcar
from seqdata.synth.settings import DEMO_CITIES, CityPlan, CitySettings, CitySummary
from seqdata.synth.tracks import Track

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
