"""Coordinates, zones and headings against written-out values and the library's own scalar route."""

from typing import Any

import numpy as np
import pytest
import utm
from hypothesis import given
from hypothesis import strategies as st

from seqdata import geometry
from seqdata.errors import InputError


@pytest.mark.parametrize(
    ("lat", "lon", "zone", "easting", "northing"),
    [
        (-37.81, 144.96, "55S", 320_400.0, 5_813_200.0),  # Melbourne: with the 10,000 km false northing
        (51.76, -1.26, "30N", 620_100.0, 5_735_900.0),  # Oxford
    ],
)
def test_known_places(lat: Any, lon: Any, zone: Any, easting: Any, northing: Any) -> None:
    assert geometry.choose_zone([lat], [lon]) == zone
    east, north = geometry.to_utm([lat], [lon], zone)
    assert abs(east[0] - easting) < 1500
    assert abs(north[0] - northing) < 1500
    assert east.dtype == north.dtype == np.float64


@given(st.floats(-79, 83), st.floats(-179.9, 179.9))
def test_matches_library_scalar_and_inverts(lat: Any, lon: Any) -> None:
    zone = geometry.choose_zone([lat], [lon])
    east, north = geometry.to_utm([lat, lat], [lon, lon], zone)
    number, northern = geometry.parse_zone(zone)
    expected = utm.from_latlon(lat, lon, number, force_northern=northern)
    assert np.allclose([east[1], north[1]], expected[:2], rtol=0, atol=1e-6)
    back = geometry.to_latlon(east, north, zone)
    assert np.allclose([back[0][0], back[1][0]], [lat, lon], rtol=0, atol=1e-5)


def test_one_zone_runs_through_equator_and_zone_edge() -> None:
    lat, lon = np.array([-1e-5, 1e-5]), np.array([33.0, 33.0])
    for zone, base in (("36N", 0.0), ("36S", 1e7)):
        _, north = geometry.to_utm(lat, lon, zone)
        assert np.allclose(north - base, [-1.1057, 1.1057], atol=1e-3)
    # 5.9999° E and 6.0001° E belong to zones 31 and 32; forced into one they are about 14 m apart.
    east, north = geometry.to_utm([50.0, 50.0], [5.9999, 6.0001], "32N")
    assert geometry.track_metres(east, north)[-1] == pytest.approx(14.34, abs=0.05)


def test_zone_of_a_set_is_that_of_its_median_point() -> None:
    assert geometry.choose_zone([50.0, 50.0, 50.0, np.nan], [5.9, 6.1, 6.2, 100.0]) == "32N"
    assert geometry.choose_zone([60.0], [4.0]) == "32N"  # Norway's exception
    assert geometry.choose_zone([10.0, 10.0, 10.0], [179.9, -179.9, -179.8]) == "1N"  # across the antimeridian


def test_nan_positions_stay_nan() -> None:
    east, north = geometry.to_utm([np.nan, 51.0], [0.0, 0.0], "31N")
    assert np.isnan([east[0], north[0]]).all()
    assert np.isfinite([east[1], north[1]]).all()


@pytest.mark.parametrize("zone", ["", "32", "N", "0N", "61N", "32U", "x2N"])
def test_bad_zone_is_named(zone: Any) -> None:
    with pytest.raises(InputError, match="UTM zone"):
        geometry.to_utm([1.0], [1.0], zone)


def test_positions_outside_utm_are_refused() -> None:
    with pytest.raises(InputError, match="outside UTM"):
        geometry.choose_zone([89.0], [0.0])
    with pytest.raises(InputError, match="do not fit"):
        geometry.to_utm([50.0, 120.0], [6.0, 6.0], "32N")
    with pytest.raises(InputError, match="no position"):
        geometry.choose_zone([np.nan], [np.nan])


def test_headings_are_clockwise_from_north() -> None:
    east, north = [0, 0, 10, 10, 0], [0, 10, 10, 0, 0]  # north, east, south, west
    assert geometry.driving_headings(east, north).tolist() == pytest.approx([0, 45, 135, 225, 270])


def test_heading_holds_while_standing_and_looks_ahead_at_the_start() -> None:
    east, north = np.array([0.0, 0, 0, 5, 10, 10, 10, 10]), np.zeros(8)
    assert geometry.driving_headings(east, north).tolist() == [90.0] * 8
    jitter = np.array([0, 0.01, -0.01, 0, 0.01, 0, -0.01, 0])
    assert np.allclose(geometry.driving_headings(east, north + jitter), 90.0, atol=0.5)


def test_a_track_that_never_moves_has_no_heading() -> None:
    assert np.isnan(geometry.driving_headings([3.0] * 4, [5.0] * 4)).all()
    assert np.isnan(geometry.driving_headings([3.0], [5.0])).all()
    assert geometry.driving_headings([], []).shape == (0,)


@given(st.floats(-1000, 1000), st.floats(-1000, 1000))
def test_heading_difference_is_the_angle_between_unit_vectors(a: Any, b: Any) -> None:
    x, y = np.radians(a), np.radians(b)
    expected = np.degrees(np.arctan2(abs(np.sin(x - y)), np.cos(x - y)))
    assert float(geometry.heading_difference(a, b)) == pytest.approx(expected, abs=1e-6)


def test_heading_difference_crosses_north() -> None:
    assert geometry.heading_difference([350, 10, 0, 90], [10, 350, 180, np.nan])[:3].tolist() == [20, 20, 180]


def test_track_metres_add_up_steps() -> None:
    assert geometry.track_metres([0, 3, 3], [0, 4, 4]).tolist() == [0, 5, 5]
    assert geometry.track_metres([], []).shape == (0,)


@pytest.mark.parametrize(("latitude", "zone"), [(0.0, "30N"), (-1e-9, "30S"), (84.0, "30N"), (-80.0, "30S")])
def test_the_equator_is_northern(latitude: float, zone: str) -> None:
    assert geometry.choose_zone([latitude], [-3.0]) == zone


def test_positions_far_beyond_a_zone_come_back() -> None:
    east, north = geometry.to_utm([0.5, -0.5], [21.0, 2.0], "32N")
    assert east[0] > 1_300_000 and north[1] < 0
    latitude, longitude = geometry.to_latlon(east, north, "32N")
    np.testing.assert_allclose(latitude, [0.5, -0.5], atol=1e-4)
    np.testing.assert_allclose(longitude, [21.0, 2.0], atol=1e-4)


def test_a_direction_a_hair_west_of_north_is_north() -> None:
    """-1e-20 degrees modulo 360 rounds to 360, which no heading is."""
    assert geometry.driving_headings([0.0, -1e-20], [0.0, 1.0]).tolist() == [0.0, 0.0]
