"""Datasets behind an HTTP server and behind S3 that stall, cut, answer 5xx and flip bytes.

A fault that passes changes nothing: the command ends as over a server that is well. One that lasts is an error, or is
said; never is a result another without a word.
"""

import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.commands import Trial, content
from tests.faults.shim import Outcome
from tests.faults.trials import ENDINGS, Result, Workshop
from tests.support.serving import serve, serve_s3
from tests.support.serving.proxy import Proxy, serve_proxy

HTTP_KINDS = ("status", "short", "cut", "reset", "wrong_range", "flip", "stall")
S3_KINDS = ("status", "cut", "reset", "flip", "stall")
BUCKET = "trials"
LASTING = 1 << 20
"""More requests than any command sends."""


def reads_datasets(trial: Trial) -> bool:
    """Whether a command reads the dataset `ds`, which may then lie at a URL."""
    return "ds" in trial.arguments and trial.output != "ds"


def writes_datasets(trial: Trial) -> bool:
    """Whether a command writes a dataset, which may then lie at a URL."""
    return trial.output == "ds" or trial.verb == "build"


@dataclass(frozen=True)
class Ended:
    """How a command ended, and the files that it left beside those that it got."""

    outcome: Outcome
    files: dict[str, str]


def _run(workshop: Workshop, trial: Trial, url: str, **variables: str) -> Ended:
    """Run a command on a dataset at a URL, with an empty cache of tables."""
    folder = workshop.copy()
    arguments = [f"{url}/ds" if word == "ds" else word for word in trial.arguments]
    cache = folder.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    outcome = workshop.program.run(arguments, folder, XDG_CACHE_HOME=str(cache), **variables)
    return Ended(outcome, content(folder))


def http(workshop: Workshop, trial: Trial, count: int, seed: int) -> Iterator[Result]:
    """Read the dataset over HTTP from a server that stumbles twice, and then from one that goes on stumbling."""
    if not reads_datasets(trial):
        return
    chance = random.Random(f"http {seed} {trial.verb}")
    with serve(workshop.base) as server:
        well = _run(workshop, trial, server.url)
        for kind in chance.sample(HTTP_KINDS, min(count, len(HTTP_KINDS))):
            times = chance.choice((2, LASTING))
            server.misbehave(kind, times, path=chance.choice(("", ".tar", ".parquet", "manifest.json")))
            stumbled = _run(workshop, trial, server.url)
            met = times - server.faults[0].times
            server.faults.clear()
            yield _judged("http", trial, f"{kind} of {met} replies", well, stumbled, passes=times == 2 and met < 3)


@contextmanager
def bucket(workshop: Workshop) -> Iterator[tuple[Proxy, str]]:
    """A proxy before moto's S3, which holds the dataset, and the URL of its folder."""
    with pytest.MonkeyPatch.context() as patch, serve_s3(patch, BUCKET) as url:
        _upload(workshop, "ds")
        with serve_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
            yield proxy, url


def s3(workshop: Workshop, trial: Trial, proxy: Proxy, url: str, count: int, seed: int) -> Iterator[Result]:
    """Read the dataset from S3 behind a proxy that stumbles."""
    if not reads_datasets(trial):
        return
    chance = random.Random(f"s3 {seed} {trial.verb}")
    variables = _credentials(proxy.url)
    well = _run(workshop, trial, url, **variables)
    for kind in chance.sample(S3_KINDS, min(count, len(S3_KINDS))):
        times = chance.choice((2, LASTING))
        proxy.misbehave(kind, "GET", times, chance.choice(("", ".tar", ".parquet")))
        stumbled = _run(workshop, trial, url, **variables)
        met = times - proxy.faults[0][2]
        proxy.faults.clear()
        yield _judged("s3", trial, f"{kind} of {met} replies", well, stumbled, passes=times == 2)


def s3_writes(workshop: Workshop, trial: Trial, proxy: Proxy, url: str, count: int, seed: int) -> Iterator[Result]:
    """Write a dataset in S3 behind a proxy that stumbles: the same command then comes to the objects of a calm run."""
    if not writes_datasets(trial):
        return
    chance = random.Random(f"writes {seed} {trial.verb}")
    variables = _credentials(proxy.url)

    def run(place: str) -> Outcome:
        arguments = [f"{url}/{place}" if word in ("ds", "out") else word for word in trial.arguments]
        return workshop.program.run(arguments, workshop.copy(), **variables)

    def begin(place: str) -> str:
        if "ds" in trial.arguments:
            _upload(workshop, place)
        return place

    calm = run(begin(f"{trial.verb}-calm"))
    expected = _objects(f"{trial.verb}-calm")
    for number in range(count):
        kind, times = chance.choice(("status", "reset", "stall", "cut")), chance.choice((2, LASTING))
        method = chance.choice(("PUT", "PUT", "GET", "HEAD"))
        place = begin(f"{trial.verb}-{seed}-{number}")
        proxy.misbehave(kind, method, times)
        ended = run(place)
        met = times - proxy.faults[0][2]
        proxy.faults.clear()
        again = ended if ended.code == calm.code else run(place)
        objects = _objects(place)
        is_same = again.code == calm.code and objects == expected
        is_right = ended.is_clean and ended.code in ENDINGS and is_same and (times > 2 or ended.code == calm.code)
        differing = sorted(name for name in objects.keys() | expected.keys() if objects.get(name) != expected.get(name))
        story = f"{kind} of {met} {method}: {ended.code}, again {again.code} {again.errors.strip()[-500:]} {differing}"
        yield Result("s3", trial.verb, is_right, story, met > 0)


def _client() -> Any:
    """A client of moto itself, past the proxy."""
    import botocore.session

    return botocore.session.get_session().create_client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def _upload(workshop: Workshop, place: str) -> None:
    """Put the dataset `ds` into the bucket."""
    client, root = _client(), workshop.base / "ds"
    for path in root.rglob("*"):
        if path.is_file():
            client.put_object(Bucket=BUCKET, Key=f"{place}/{path.relative_to(root).as_posix()}", Body=path.read_bytes())


def _credentials(endpoint: str) -> dict[str, str]:
    """Variables that point every client of a command at the proxy."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED")
    return {**{name: os.environ[name] for name in names}, "AWS_ENDPOINT_URL": endpoint}


def _objects(place: str) -> dict[str, str]:
    """Hash of every object of a dataset in the bucket, by its name."""
    client = _client()
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{place}/").get("Contents", [])
    bodies = {entry["Key"]: client.get_object(Bucket=BUCKET, Key=entry["Key"])["Body"].read() for entry in listed}
    return {name.partition("/")[2]: hashlib.sha256(body).hexdigest() for name, body in bodies.items()}


def _judged(kind: str, trial: Trial, story: str, well: Ended, stumbled: Ended, *, passes: bool) -> Result:
    """Whether a command over a stumbling server ended as over one that is well, or said what it met."""
    ended = stumbled.outcome
    is_same = ended.code == well.outcome.code and stumbled.files == well.files
    if trial.prints_figures:
        is_same = is_same and ended.output == well.outcome.output
    is_said = ended.code in ENDINGS and (ended.code != 0 or "damaged" in ended.errors)
    is_right = ended.is_clean and (is_same if passes else is_same or is_said)
    story = f"{story}: {ended.code} instead of {well.outcome.code} {ended.errors.strip()[-500:]}"
    return Result(kind, trial.verb, is_right, story, is_said)
