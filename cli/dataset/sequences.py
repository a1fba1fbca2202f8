"""`seqdata sequences` and `protocols`: windows and truth of any protocol over a sealed dataset."""

from typing import Annotated, Any

import typer

from cli.config import dataset_protocol, load, open_dataset
from cli.flags import DatasetArgument, ProtocolFlag
from cli.output import ConfigFlag, JsonFlag, emit, entry, note, size
from seqdata import protocols as registry
from seqdata.dataset.info import protocol_counts
from seqdata.errors import UsageError


def sequences(
    dataset: DatasetArgument = None,
    length: Annotated[
        list[int] | None,
        typer.Option(help="Frames a window; may repeat.", min=1, show_default="the protocol's"),
    ] = None,
    protocol: ProtocolFlag = None,
    stride: Annotated[int | None, typer.Option(help="Frames from window to window.", min=1, show_default=False)] = None,
    spacing: Annotated[
        float | None, typer.Option(help="Distance between frames, by the dataset's rule.", show_default=False)
    ] = None,
    max_radius: Annotated[
        float | None, typer.Option(help="How far stored pairs reach at least; pairs grow fast.", show_default="25")
    ] = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """Add windows of other lengths, spacings or protocols.

    Windows and their ground truth are added to a sealed dataset; its shards stay untouched.
    """
    if max_radius is not None and not 0 < max_radius < float("inf"):
        raise UsageError(f"--max-radius {max_radius:g}: expected a positive number")
    work = load(config)
    opened = open_dataset(work, dataset)
    base = dataset_protocol(work, protocol, opened)
    made: dict[str, Any] = {}
    lines = []
    # A length that is named twice makes its tables once, in the order of the flags.
    for frames in dict.fromkeys(length or [base.length]):
        variant = base.variant(frames, stride, spacing)
        added = opened.add_tables(variant, max_radius)
        counts = protocol_counts(opened, variant)["splits"]
        made[variant.label] = {"tables": added.model_dump(mode="json")["tables"], "splits": counts}
        added_bytes = sum(table.bytes for table in added.tables.values())
        lines.append(f"{variant.label}: {len(added.tables)} tables added, {size(added_bytes)}")
        lines += [_counts_text(name, split) for name, split in counts.items()]
    emit({"path": opened.location, "dataset": opened.id, "protocols": made}, "\n".join(lines), as_json=as_json)


def _counts_text(split: str, counts: dict[str, Any]) -> str:
    text = (
        f"  {split:<8}{counts['database']:>9} database {counts['query']:>9} query "
        f"{counts['without_positive']:>7} without a positive"
    )
    if "without_positive_any_heading" in counts:
        text += f" ({counts['without_positive_any_heading']} with any heading)"
    differing = [f"{counts['expected'][key]} {key}" for key in counts["differs_from_expected"]]
    return text + (f"  (published: {', '.join(differing)})" if differing else "")


def protocols(
    what: Annotated[str | None, typer.Argument(help="show, or a protocol's name.", show_default=False)] = None,
    name: Annotated[str | None, typer.Argument(help="The protocol to show whole.", show_default=False)] = None,
    as_json: JsonFlag = False,
    config: ConfigFlag = None,
) -> None:
    """List the shipped protocols, or print one.

    `show NAME` prints one whole; the list gives their hashes.
    """
    load(config)
    file = name if what == "show" else what
    # `show` may be left out, so one argument is a name and two must begin with it.
    if what not in (None, "show") and name is not None:
        raise UsageError(f"protocols {what} {name}: expected seqdata protocols show NAME")
    if what == "show" and name is None:
        raise UsageError("protocols show: name a protocol; seqdata protocols lists them")
    if file is None:
        _list_protocols(as_json=as_json)
    else:
        _show_protocol(file, as_json=as_json)


def _list_protocols(*, as_json: bool) -> None:
    versions = {name: registry.shipped_versions(name) for name in registry.names()}
    shipped = [protocol for of_name in versions.values() for protocol in of_name]
    marks = {protocol.label: "" for protocol, *_ in versions.values()}
    lines = [entry(f"{protocol.label}{marks.get(protocol.label, ', earlier')}", protocol.title) for protocol in shipped]
    rows = {
        name: {"hash": present.hash, "title": present.title, "earlier": [protocol.hash for protocol in earlier]}
        for name, (present, *earlier) in versions.items()
    }
    emit(rows, "\n".join(lines), as_json=as_json)
    note(
        "one whole: seqdata protocols show NAME (also NAME-L10, at another length, and NAME@HASH, an earlier one); a "
        "file of your own is a .toml path"
    )


def _show_protocol(name: str, *, as_json: bool) -> None:
    loaded = registry.load(name)
    fields = {"hash": loaded.hash, **loaded.model_dump(mode="json", exclude_none=True)}
    emit(fields, "\n".join(_field_lines(fields)), as_json=as_json)


def _field_lines(fields: dict[str, Any], indent: str = "") -> list[str]:
    """One line a field; the fields of a table stand below its name."""
    lines = []
    for key, value in fields.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_field_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key} = {value}")
    return lines
