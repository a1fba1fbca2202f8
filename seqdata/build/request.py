"""The request of a build, and how a protocol fills in what it leaves open.

A protocol may pin how a dump is read (source, lookup and gap of the poses, crop) and how frames are resampled (metres
and rule). Such values are the build's defaults: a request that says nothing takes them, one that says otherwise
contradicts its protocol.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from seqdata import protocols
from seqdata.contracts.manifest import BuildSettings
from seqdata.contracts.protocol import Protocol
from seqdata.errors import InputError
from seqdata.parallel import Engine
from seqdata.sources.registry import open_source

FALLBACK_PROTOCOL = "own"
"""Protocol without pins: frames' own roles, any frame within 25 m."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build, from where, to where, and with which settings.

    Attributes:
        kind: Kind of raw dump (see `seqdata.sources.source_names`).
        raw: Folder of the raw dump.
        out: Folder or fsspec URL of the dataset.
        options: The source's own options as text; what a protocol pins may be left out.
        settings: What decides the bytes of the dataset.
        protocol: Protocol whose windows and positives are stored; None stores none.
        workers: Processes that write shards.
        engine: What runs the shards: `pool` (processes of this machine) or `ray`.

    Example:
        >>> request = BuildRequest("folder", Path("photos"), "datasets/photos", workers=4)
        >>> request.title
        'folder from photos'
    """

    kind: str
    raw: Path
    out: str | Path
    options: Mapping[str, str] = field(default_factory=dict)
    settings: BuildSettings = field(default_factory=BuildSettings)
    protocol: Protocol | None = None
    workers: int = 1
    engine: Engine = "pool"

    @property
    def title(self) -> str:
        """Kind and place of the dump, for messages to other processes that want the same output folder."""
        return f"{self.kind} from {self.raw}"


def follow_protocol(request: BuildRequest) -> tuple[BuildRequest, dict[str, str]]:
    """Take from the protocol what it pins and the request leaves open.

    Args:
        request: A request; options that it names and settings that were set explicitly are never changed.

    Returns:
        The completed request, and the values that were taken, by the name of their command-line flag.

    Raises:
        InputError: If an explicit option or rule contradicts the protocol (it names the flag), or the dump is missing.
        ContractError: If an option is unknown or has a bad value.
    """
    if request.protocol is None:
        return request, {}
    fault = contradiction(request)
    if fault:
        raise InputError(f"{request.raw}: {fault}, or name another --protocol")
    # Only what differs is taken: options of a dataset whose defaults fit stay as they are, and so does its id.
    options = {option: pinned for option, (pinned, _) in _pinned_options(request).items()}
    settings = _pinned_settings(request)
    flags = {"resample_metres": "resample", "resample_rule": "rule"}
    taken = {option.replace("_", "-"): value for option, value in options.items()}
    taken |= {flags[name]: f"{value:g}" if isinstance(value, float) else value for name, value in settings.items()}
    followed = replace(
        request,
        options={**request.options, **options},
        settings=request.settings.model_copy(update=settings) if settings else request.settings,
    )
    return followed, taken


def contradiction(request: BuildRequest) -> str:
    """Find where a request's explicit options or rule contradict its protocol.

    Returns:
        A clause that ends in the flag to give instead, or "" where nothing contradicts.
    """
    protocol = request.protocol
    if protocol is None:
        return ""
    for option, (pinned, own) in _pinned_options(request).items():
        if option in request.options:
            flag = f"--{option.replace('_', '-')}"
            return f"protocol {protocol.name} wants {flag} {pinned}, not {own}: give {flag} {pinned}"
    rule = request.settings.resample_rule
    if "resample_rule" in request.settings.model_fields_set and protocol.pinned_rule not in (None, rule):
        return (
            f"protocol {protocol.name} wants --rule {protocol.pinned_rule} for its spacing, not {rule}: "
            f"give --rule {protocol.pinned_rule}"
        )
    return ""


def choose_protocol(request: BuildRequest) -> tuple[BuildRequest, str]:
    """Replace a default protocol that contradicts the request by `own`; for requests whose user named no protocol.

    Returns:
        The request, and a sentence that says what was replaced and why ("" where the protocol stays).
    """
    fault = contradiction(request)
    if not fault or request.protocol is None:
        return request, ""
    fallback = protocols.load(FALLBACK_PROTOCOL)
    return replace(request, protocol=fallback), (
        f"built under {fallback.name}, whose windows are cut by the frames' own roles: {fault}, or name a --protocol"
    )


def _pinned_options(request: BuildRequest) -> dict[str, tuple[str, str]]:
    """Options that the protocol pins to other values than the opened source has: option → (pinned, own)."""
    if request.protocol is None:
        return {}
    return open_source(request.kind, request.raw, request.options).pinned_options(request.protocol)


def _pinned_settings(request: BuildRequest) -> dict[str, str | float]:
    """Settings that the protocol pins and the request did not set; values that are the default already are left out,
    so that a dataset's id does not depend on who named them.
    """
    protocol, settings = request.protocol, request.settings
    if protocol is None:
        return {}
    pins = {"resample_metres": protocol.spacing, "resample_rule": protocol.pinned_rule}
    return {
        name: value
        for name, value in pins.items()
        if value is not None and name not in settings.model_fields_set and value != getattr(settings, name)
    }
