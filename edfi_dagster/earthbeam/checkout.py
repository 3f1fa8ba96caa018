"""The commit of the checkout that a folder lies in, read from git's own files: no git is needed where runs execute."""

from __future__ import annotations

from pathlib import Path


def commit_of(folder: Path) -> str | None:
    """The commit checked out in ``folder`` or around it; None where there is none or git keeps it in another way."""
    for parent in (folder, *folder.parents):
        git = parent / ".git"
        if git.exists():
            return _head(_git_folder(git))
    return None


def _git_folder(git: Path) -> Path:
    """The folder itself, or the one that the file of a work tree or submodule points at."""
    if git.is_dir():
        return git
    return git.parent / _text(git).removeprefix("gitdir:").strip()


def _head(git: Path) -> str | None:
    head = _text(git / "HEAD").strip()
    reference = head.removeprefix("ref:").strip()
    if reference == head:
        return head or None
    common = git / _text(git / "commondir").strip()
    for place in (git, common):
        if found := _text(place / reference).strip():
            return found
        for line in _text(place / "packed-refs").splitlines():
            if line.endswith(f" {reference}"):
                return line.split()[0]
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
