"""A real small disk: a tmpfs of some bytes, for those who may mount one."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

_PAGE = 4096
_LARGE = 1 << 30


@dataclass(frozen=True)
class SmallDisk:
    """A mounted tmpfs at `folder`."""

    folder: Path

    def enlarge(self) -> None:
        """Make space."""
        _mount("-o", f"remount,size={_LARGE}", str(self.folder))


@contextmanager
def small_disk(base: Path, folder: Path, spare: int) -> Iterator[SmallDisk]:
    """Mount a tmpfs at `folder` that holds a copy of `base` and has `spare` bytes left."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={_LARGE}", "tmpfs", str(folder))
    try:
        shutil.copytree(base, folder, dirs_exist_ok=True)
        state = os.statvfs(folder)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize
        _mount("-o", f"remount,size={used + -(-spare // _PAGE) * _PAGE}", str(folder))
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@cache
def can_mount() -> bool:
    """Whether this process may mount; root may, unless it lives in a container without that right."""
    with TemporaryDirectory() as folder:
        try:
            _mount("-t", "tmpfs", "-o", f"size={_PAGE}", "tmpfs", folder)
        except (OSError, subprocess.CalledProcessError):
            return False
        subprocess.run(["umount", folder], check=True)
        return True


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
