"""Jobs on Ray's actors: one a device, a dead one replaced, its job run again; by a stand-in for Ray."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from seqdata.errors import InputError, OutputError
from seqdata.parallel.ray_engine import MOST_LOSSES, _run_on_actors


@dataclass(frozen=True)
class Square:
    number: int

    def run(self) -> int:
        if self.number < 0:
            raise InputError(f"{self.number}: negative")
        return self.number**2


class RayError(Exception): ...


class RayActorError(RayError): ...


class ObjectLostError(RayError): ...


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__("traceback")
        self.cause = cause


@dataclass
class FakeRay:
    """Runs a call when its result is waited for; `dies` says whether an actor dies in its n-th call."""

    resources: dict[str, float]
    dies: Callable[[int, int], bool] = lambda actor, call: False
    death: type[RayError] = RayActorError
    never_ready: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    actors: int = 0
    waiting: deque[Any] = field(default_factory=deque)
    exceptions: Any = None

    def __post_init__(self) -> None:
        self.exceptions = type("exceptions", (), {"RayError": RayError, "RayActorError": RayActorError})
        self.exceptions.RayTaskError = RayTaskError

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, cls: type) -> Any:
        ray = self

        class Maker:
            def options(self, **options: Any) -> "Maker":
                ray.options = options
                return self

            def remote(self) -> Any:
                ray.actors += 1
                return FakeActor(ray, cls(), ray.actors)

        return Maker()

    def wait(self, references: list[Any]) -> tuple[list[Any], list[Any]]:
        ready = [reference for reference in references if reference[0].number not in self.never_ready]
        assert ready, "nothing would ever be ready"
        return ready[:1], [reference for reference in references if reference is not ready[0]]

    def get(self, reference: Any) -> Any:
        actor, _, call = reference
        return actor.finish(call)


@dataclass(eq=False)
class FakeActor:
    ray: FakeRay
    host: Any
    number: int
    calls: int = 0

    def __getattr__(self, name: str) -> Any:
        actor = self

        class Method:
            def remote(self, *arguments: Any) -> Any:
                return actor, name, lambda: getattr(actor.host, name)(*arguments)

        return Method()

    def finish(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.ray.dies(self.number, self.calls):
            raise self.ray.death
        try:
            return call()
        except InputError as error:
            raise RayTaskError(error) from error


JOBS = [Square(number) for number in range(9)]
SQUARES = [number**2 for number in range(9)]


@pytest.mark.parametrize(
    ("resources", "placement", "count"),
    [
        ({"CPU": 16.0, "GPU": 2.0}, {"num_gpus": 1}, 2),
        ({"CPU": 3.0}, {"num_cpus": 1}, 3),
        ({}, {"num_cpus": 1}, 1),
    ],
)
def test_one_actor_a_device(resources: dict[str, float], placement: dict[str, int], count: int) -> None:
    ray = FakeRay(resources)
    assert sorted(_run_on_actors(ray, iter(JOBS))) == SQUARES
    assert (ray.options, ray.actors) == (placement, count)


@pytest.mark.parametrize("death", [RayActorError, ObjectLostError])
def test_the_job_of_a_dead_actor_is_run_again_by_another(death: type[RayError]) -> None:
    ray = FakeRay({"CPU": 2.0}, dies=lambda actor, call: actor == 1 and call == 3, death=death)
    assert sorted(_run_on_actors(ray, iter(JOBS))) == SQUARES
    assert ray.actors == 3, "a new one is begun in its place"


def test_an_actor_without_a_place_is_not_waited_for() -> None:
    """The node of the first is gone with its device: what would replace it never starts, and the other goes on."""
    ray = FakeRay({"CPU": 2.0}, dies=lambda actor, call: actor == 1 and call == 2, never_ready=(3,))
    assert sorted(_run_on_actors(ray, iter(JOBS))) == SQUARES


def test_a_job_that_kills_every_actor_ends_the_run() -> None:
    ray = FakeRay({"CPU": 2.0}, dies=lambda actor, call: call == 2)
    with pytest.raises(OutputError, match="worker died"):
        list(_run_on_actors(ray, iter(JOBS)))
    assert ray.actors <= 2 + MOST_LOSSES


def test_an_error_of_a_job_is_its_own() -> None:
    with pytest.raises(InputError, match="-4: negative"):
        list(_run_on_actors(FakeRay({"CPU": 2.0}), iter([*JOBS, Square(-4)])))


def test_no_job_needs_no_actor_to_finish() -> None:
    assert list(_run_on_actors(FakeRay({"CPU": 2.0}, never_ready=(1, 2)), iter(()))) == []
