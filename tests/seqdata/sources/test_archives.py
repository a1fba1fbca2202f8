"""Archives read in place: the right bytes, the last of equal names, nothing outside, no bomb, no traceback."""

import io
import multiprocessing
import os
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seqdata.errors import InputError, SeqdataError
from seqdata.frames.images import BadImageError
from seqdata.sources import archives
from seqdata.sources.archives import Archive, Folder, Overlay, open_archive

FILES = {"a/1.jpg": b"one" * 100, "a/2.jpg": b"", "b/deep/3.csv": os.urandom(5000), "z.txt": b"last"}
ESCAPES = ("../out.jpg", "a/../../out.jpg", "/abs.jpg", "C:\\win.jpg", "C:/win.jpg", "..\\out.jpg", "\\\\host\\x.jpg")


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return path


def make_tar(path: Path, files: dict[str, bytes], kind: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def stored_zip(path: Path, files: dict[str, bytes]) -> Path:
    return make_zip(path, files, zipfile.ZIP_STORED)


def gnu_tar(path: Path, files: dict[str, bytes]) -> Path:
    return make_tar(path, files, tarfile.GNU_FORMAT)


def pax_tar(path: Path, files: dict[str, bytes]) -> Path:
    return make_tar(path, files, tarfile.PAX_FORMAT)


MAKERS: list[tuple[str, Callable[[Path, dict[str, bytes]], Path]]] = [
    ("x.zip", make_zip),
    ("x.ZIP", stored_zip),
    ("x.tar", make_tar),
    ("y.tar", gnu_tar),
    ("z.tar", pax_tar),
]


@pytest.mark.parametrize(("name", "make"), MAKERS)
def test_members_and_bytes(tmp_path: Path, name: str, make: Callable[[Path, dict[str, bytes]], Path]) -> None:
    files = FILES | {("long/" * 25) + "ü.jpg": b"long name"} if make is not make_tar else FILES
    archive = open_archive(make(tmp_path / name, files))
    assert archive.names() == {name: len(data) for name, data in files.items()}
    assert {name: archive.read(name) for name in files} == files
    assert archive.members("a")["name"].to_list() == ["a/1.jpg", "a/2.jpg"]
    assert archive.members().equals(archive.members().sort("name"))
    for absent in ("a", "a/", "0", "zz", "a/1.jp", "a/1.jpgx"):
        with pytest.raises(KeyError):
            archive.read(absent)


@given(
    names=st.lists(st.text("abcé/._-", min_size=1, max_size=12), unique=True, max_size=8), data=st.binary(max_size=50)
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names_are_found_or_left_out_with_a_reason(tmp_path: Path, names: list[str], data: bytes) -> None:
    path = tmp_path / "h.tar"
    archive = open_archive(pax_tar(path, {name: data + name.encode() for name in names}))
    listed = set(archive.names())
    left_out = set(archive.skipped()["name"])
    with tarfile.open(path) as other:
        for info in other.getmembers():
            clean = "/".join(part for part in info.name.split("/") if part not in ("", "."))
            assert (clean in listed) or (info.name in left_out)
    assert all(".." not in name.split("/") and not name.startswith("/") for name in listed)


def test_leading_dot_and_equal_names(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    make_tar(path, {"./lap/1.png": b"first"})
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("lap/1.png")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"second"))
    assert open_archive(path).names() == {"lap/1.png": 6}
    assert open_archive(path).read("lap/1.png") == b"second"


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("make", [make_zip, pax_tar])
def test_names_that_lead_outside_are_left_out(
    tmp_path: Path, escape: str, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    path = make(tmp_path / ("x.zip" if make is make_zip else "x.tar"), {escape: b"evil", "good.jpg": b"good"})
    archive = open_archive(path)
    assert list(archive.names()) == ["good.jpg"]
    assert archive.skipped().height == 1
    assert archive.skipped()["message"].item() in ("its name is absolute", "its name climbs out of the archive")
    with pytest.raises(KeyError):
        archive.read(escape)


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in (
            ("s", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("d", tarfile.CHRTYPE),
            ("f", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(f"{name}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("whole.jpg"))
    archive = open_archive(tmp_path / "x.tar")
    assert list(archive.names()) == ["whole.jpg"]
    assert archive.skipped().rows() == [
        ("s.jpg", "it is a link"),
        ("h.jpg", "it is a link"),
        ("d.jpg", "it is no regular file"),
        ("f.jpg", "it is no regular file"),
    ]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc/passwd")
    assert open_archive(tmp_path / "x.zip").skipped().rows() == [("link.jpg", "it is a link")]


def test_bombs_are_refused_before_they_inflate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = make_zip(
        tmp_path / "bomb.zip", {"bomb.jpg": bytes(8 << 20), "small.jpg": bytes(1000), "fine.bin": b"x" * 5000}
    )
    archive = open_archive(bomb)
    with pytest.raises(BadImageError, match="decompression bomb") as caught:
        archive.read("bomb.jpg")
    assert caught.value.reason == "unreadable_image"
    assert archive.read("small.jpg") == bytes(1000)
    monkeypatch.setattr(archives, "GREATEST_MEMBER", 4000)
    with pytest.raises(BadImageError, match="more than 4,000"):
        archive.read("fine.bin")


def test_never_inflates_more_than_announced(tmp_path: Path) -> None:
    """A directory that announces 10 bytes for a member of 4 MB."""
    path = make_zip(tmp_path / "lie.zip", {"lie.jpg": bytes(4 << 20)})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    archive = open_archive(path)
    assert archive.names() == {"lie.jpg": 10}
    with pytest.raises(BadImageError, match="not those that the zip announces"):
        archive.read("lie.jpg")


def test_damage_of_one_member_is_its_own(tmp_path: Path) -> None:
    path = stored_zip(tmp_path / "x.zip", {"a.jpg": b"A" * 100, "b.jpg": b"B" * 100})
    data = bytearray(path.read_bytes())
    data[data.index(b"AAAA") + 3] ^= 1
    path.write_bytes(data)
    archive = open_archive(path)
    with pytest.raises(BadImageError) as caught:
        archive.read("a.jpg")
    assert caught.value.reason == "unreadable_image"
    assert archive.read("b.jpg") == b"B" * 100


def test_encrypted_and_unknown_methods_are_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"a.jpg": b"a" * 50}, zipfile.ZIP_BZIP2)
    with pytest.raises(BadImageError, match="zip method 12"):
        open_archive(path).read("a.jpg")
    path = stored_zip(tmp_path / "e.zip", {"a.jpg": b"a" * 50})
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(BadImageError, match="encrypted"):
        open_archive(path).read("a.jpg")


def test_an_archive_that_shrank_or_went_away(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.jpg": b"a" * 5000})
    archive = open_archive(path)
    os.truncate(path, 1000)
    with pytest.raises(BadImageError, match="ends after"):
        archive.read("a.jpg")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        archive.read("a.jpg")


@pytest.mark.parametrize("keep", [0, 1, 100, 511, 512, 700, 1500, 1536, 2047, 2048, 2560])
def test_a_cut_tar_is_refused_wherever_it_is_cut(tmp_path: Path, keep: int) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.jpg": b"a" * 600, "b.jpg": b"b" * 100})
    data = path.read_bytes()
    end = 512 + 1024 + 512 + 512
    path.write_bytes(data[:keep])
    with pytest.raises(InputError, match=r"x\.tar: not a whole tar"):
        open_archive(path)
    path.write_bytes(data[: end + 1024])
    assert len(open_archive(path).names()) == 2


def test_a_broken_header_in_mid_tar_is_no_end(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.jpg": b"a" * 600, "b.jpg": b"b" * 100})
    data = bytearray(path.read_bytes())
    data[512 + 1024 + 150] ^= 0xFF  # in the second header's checksum
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged at byte 1,536"):
        open_archive(path)


@given(
    where=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    keep=st.floats(0.2, 1),
    kind=st.sampled_from([0, 2, 3, 4]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_archives_end_in_named_errors(
    tmp_path: Path, where: list[tuple[float, int]], keep: float, kind: int
) -> None:
    name, make = MAKERS[kind]
    data = bytearray(make(tmp_path / name, FILES).read_bytes())
    for share, value in where:
        data[int(share * len(data))] = value
    path = tmp_path / f"damaged{Path(name).suffix}"
    path.write_bytes(data[: max(1, int(keep * len(data)))])
    try:
        archive = open_archive(path)
    except SeqdataError as error:
        assert str(path) in str(error)
        return
    for member in archive.names():
        try:
            archive.read(member)
        except BadImageError as error:
            assert error.reason == "unreadable_image"


def test_wrong_kinds_are_named(tmp_path: Path) -> None:
    for name in ("x.tar.gz", "x.rar"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InputError, match=r"neither a \.zip nor a plain \.tar"):
            open_archive(tmp_path / name)
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    for path in (tmp_path / "packed.tar", tmp_path / "none.zip"):
        with pytest.raises(InputError, match=path.name):
            open_archive(path)
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(InputError, match=r"folder\.tar"):
        open_archive(tmp_path / "folder.tar")


def test_headers_are_read_once_and_again_when_the_file_changes(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "x.tar", {"a.jpg": b"a"})
    first = open_archive(path)
    assert open_archive(path) is first
    make_tar(path, {"a.jpg": b"a", "b.jpg": bytes(20_000)})
    assert set(open_archive(path).names()) == {"a.jpg", "b.jpg"}


def test_overlay_the_later_wins(tmp_path: Path) -> None:
    below = open_archive(make_zip(tmp_path / "images.zip", {"a.jpg": b"corrupt", "b.jpg": b"b"}))
    patch = open_archive(make_zip(tmp_path / "patch.zip", {"a.jpg": b"repaired!"}))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c.jpg").write_bytes(b"ccc")
    overlay = Overlay((below, patch, Folder(tmp_path / "folder")))
    assert overlay.members().rows() == [("a.jpg", 9), ("b.jpg", 1), ("c.jpg", 3)]
    assert [overlay.read(name) for name in ("a.jpg", "b.jpg", "c.jpg")] == [b"repaired!", b"b", b"ccc"]
    assert Overlay((patch, below)).read("a.jpg") == b"corrupt"
    with pytest.raises(KeyError):
        overlay.read("d.jpg")
    assert Overlay(()).members().height == 0


def test_folder_lists_links_but_never_climbs(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "sub" / "a.jpg").write_bytes(b"a")
    (root / "linked.jpg").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to(root)
    (root / "dangling.jpg").symlink_to(tmp_path / "nothing")
    folder = Folder(root)
    assert folder.members().rows() == [("linked.jpg", 6), ("sub/a.jpg", 1)]
    assert folder.members("sub").rows() == [("sub/a.jpg", 1)]
    assert folder.members("none").height == 0
    for outside in ("../secret", str(tmp_path / "secret")):
        with pytest.raises(KeyError):
            folder.read(outside)


def _read_all(archive: Archive) -> dict[str, bytes]:
    return {name: archive.read(name) for name in archive.names()}


def test_threads_and_pickles(tmp_path: Path) -> None:
    files = {f"{i}.jpg": os.urandom(2000) for i in range(200)}
    for archive in (
        open_archive(make_zip(tmp_path / "x.zip", files)),
        open_archive(make_tar(tmp_path / "x.tar", files)),
    ):
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(archive.read, files)) == list(files.values())
        assert _read_all(pickle.loads(pickle.dumps(archive))) == files


def test_another_process(tmp_path: Path) -> None:
    archive = open_archive(make_tar(tmp_path / "x.tar", FILES))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_read_all, (archive,)) == FILES


def test_real_zip_against_zipfile(real: Path) -> None:
    path = real / "nordland" / "winter.zip"
    archive = open_archive(path)
    with zipfile.ZipFile(path) as other:
        infos = [info for info in other.infolist() if not info.is_dir()]
        assert archive.names() == {info.filename: info.file_size for info in infos}
        for info in infos[::200]:
            assert archive.read(info.filename) == other.read(info)
