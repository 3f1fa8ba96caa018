"""A working copy for one run: the project with its packages in place, its outputs, and room for the tools.

Earthmover writes beside its configuration and fetches packages from git in each run; in a copy with the packages
vendored it does neither. The fingerprint is taken of the copy, so what was hashed is what runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edfi_dagster.earthbeam.errors import BundleError, EarthbeamError
from edfi_dagster.earthbeam.rendering import Composed

_LEFT_OUT = shutil.ignore_patterns(".git", "packages", "output", ".lightbeam", "runs.csv", "__pycache__")
_CHUNK = 1 << 20
_PREFIX, _LOCK = "earthbeam_", "lock"
_SETTLED_SECONDS = 60.0


@dataclass(frozen=True)
class Workspace:
    """Folders of one run, all below ``root``."""

    root: Path

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def scratch(self) -> Path:
        """For hooks, rosters and the tools' own files."""
        return self.root / "scratch"

    def install(self, folder: Path, composed: Composed) -> None:
        """Copy a project, and its packages to where Earthmover looks for them. Raises BundleError for what cannot be read."""
        _copy(folder, self.project)
        for package in composed.packages:
            _copy(package.folder, self.project / package.place)

    def content(self) -> str:
        """SHA-256 of all files of the project, by path."""
        found = hashlib.sha256()
        for file in sorted(path for path in self.project.rglob("*") if path.is_file()):
            found.update(f"{file.relative_to(self.project).as_posix()}\0{file_digest(file)}\0".encode())
        return found.hexdigest()

    def clear_outputs(self) -> None:
        shutil.rmtree(self.outputs, ignore_errors=True)
        self.outputs.mkdir()


def _copy(folder: Path, to: Path) -> None:
    try:
        shutil.copytree(folder, to, ignore=_LEFT_OUT, dirs_exist_ok=True, ignore_dangling_symlinks=True)
    except shutil.Error as error:
        source, _, why = error.args[0][0]
        raise BundleError(f"{source}: cannot be copied for the run ({why})") from None


@contextmanager
def workspace(tmp_dir: Path | None = None) -> Iterator[Workspace]:
    """A workspace that is gone after the block, however it ends; only its owner can read it.

    Raises EarthbeamError where it cannot be made.
    """
    place = tmp_dir or Path(tempfile.gettempdir())
    try:
        place.mkdir(parents=True, exist_ok=True)
        remove_abandoned(place)
        made = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place)
    except OSError as error:
        raise EarthbeamError(f"{place}: {error.strerror}; make room there, or set extract.tmp_dir") from None
    with made as root, (Path(root) / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        space = Workspace(Path(root).resolve())
        for folder in (space.project, space.outputs, space.scratch):
            folder.mkdir()
        yield space


def remove_abandoned(place: Path) -> None:
    """Remove what killed runs left in ``place``: students' rows lie there. A run that lives holds its lock."""
    for folder in place.glob(f"{_PREFIX}*"):
        try:
            with (folder / _LOCK).open("rb") as lock:
                # A new one may not hold its lock yet.
                if time.time() - os.fstat(lock.fileno()).st_mtime > _SETTLED_SECONDS:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            # It is in use, or somebody else's.
            continue


def file_digest(file: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            found.update(piece)
    return found.hexdigest()


def fingerprint(*parts: str | Mapping[str, str]) -> str:
    """SHA-256 of texts and mappings, in their order; a mapping counts as what it says, not as how it is ordered."""
    found = hashlib.sha256()
    for part in parts:
        texts = [part] if isinstance(part, str) else [f"{name}\1{part[name]}" for name in sorted(part)]
        found.update("\0".join(texts).encode() + b"\2")
    return found.hexdigest()
