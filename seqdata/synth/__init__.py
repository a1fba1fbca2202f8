"""A small synthetic city, rendered and written as a raw MSLS dump: what `make demo` and the tests run on."""

from seqdata.synth.msls import write_msls
from seqdata.synth.settings import DEMO_CITIES, CityPlan, CitySettings, CitySummary

__all__ = ["DEMO_CITIES", "CityPlan", "CitySettings", "CitySummary", "write_msls"]
