"""Files that are being written: under a temporary name that their writer holds locked, and within the room there is.

The lock is the kernel's, so it is gone when its writer is, also after a kill -9: `sweep` tells a dead writer's file from one
that is still being written without asking how old it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

STEP = 8 << 20  # bytes between two looks at how much room is left


class NoRoom(Exception):
    """The mailbox has reached its bound, or the disk is nearly full; nothing was kept."""

    rerun = "no"
    remedy = "Make room on the disk of data/mailbox; the next run asks again"


@dataclass(frozen=True)
class Room:
    """How much may lie in a folder.

    Attributes:
        total: bytes of all files in it, those that are being written included.
        floor: bytes that must stay free on its disk: a full one would stop everybody else too.
    """

    total: int = 16 << 30
    floor: int = 1 << 30

    def require(self, folder: Path, more: int) -> None:
        """Raise `NoRoom` unless `more` bytes may be added to `folder`."""
        held = sum(_size(Path(inside) / name) for inside, _, names in os.walk(folder) for name in names)
        if held + more > self.total:
            raise NoRoom(
                f"{folder} holds {held >> 20} MB, and with {more >> 20} MB more it would pass its bound of {self.total >> 20} MB"
            )
        free = shutil.disk_usage(folder).free
        if free - more < self.floor:
            raise NoRoom(
                f"the disk of {folder} has {free >> 20} MB left, and {more >> 20} MB more would leave less than "
                f"{self.floor >> 20} MB; make room there"
            )


class Draft:
    """A new file of `folder` that only its owner may read: published complete and synced, or gone.

    Args:
        folder: where it is written, and where it will be published.
        room: what `within` may hold; looked at again every `STEP` bytes.
        within: a folder above.
        name: of the file that it will be, for `sweep_beside` to know it by.
    """

    def __init__(self, folder: Path, room: Room | None = None, within: Path | None = None, name: str = "") -> None:
        self.size = 0
        self._room, self._within = room, within or folder
        self._digest = hashlib.sha256()
        self.path, handle = _created(folder, name)
        self._file = os.fdopen(handle, "wb")
        self._looked = 0

    def write(self, piece: bytes) -> None:
        """Add bytes.

        Raises:
            NoRoom: they would be too many.
            OSError: the disk does not take them.
        """
        if self._room and self.size + len(piece) > self._looked:
            self._room.require(self._within, max(STEP, len(piece)))
            self._looked = self.size + max(STEP, len(piece))
        self._digest.update(piece)
        self._file.write(piece)
        self.size += len(piece)

    @property
    def sha256(self) -> str:
        """Of everything written so far."""
        return self._digest.hexdigest()

    def settle(self) -> None:
        """Everything written so far survives a power cut."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def publish(self, target: Path) -> None:
        """It is `target` from now on, in its folder, also after a power cut."""
        self.settle()
        self.path.replace(target)
        sync(target.parent)

    def __enter__(self) -> Draft:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # a full disk may refuse what was still in memory; it is thrown away anyhow
            self._file.close()
        self.path.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that only its owner may enter: `target` when the block was left, complete, or absent."""
    while True:
        work = target.with_name(_temporary())
        work.mkdir(mode=0o700)
        handle = _locked(work)
        if handle is not None:
            break
    try:
        yield work
        sync(work)
        work.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(handle)


def remove_folder(folder: Path) -> None:
    """Remove a folder: all of it or none, also when this dies half-way."""
    doomed = folder.with_name(_temporary())
    with suppress(FileNotFoundError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what dead writers left in `folder` and in the folders inside it."""
    _remove_dead(
        [*_temporaries(folder), *(left for inside in _names(folder) for left in _temporaries(folder / inside))]
    )


def sweep_beside(target: Path) -> None:
    """Remove what dead writers of `target` left in its folder, which may be anybody's."""
    _remove_dead([path for path in _temporaries(target.parent) if path.name.startswith(f".{target.name}.")])


def _remove_dead(paths: list[Path]) -> None:
    for path in paths:
        handle = _locked(path)
        if handle is None:
            continue
        try:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One thread of one process at a time; FileNotFoundError when the folder is gone."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def sync(folder: Path) -> None:
    """Make names in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _created(folder: Path, name: str) -> tuple[Path, int]:
    while True:
        path = folder / _temporary(name)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(handle).st_ino:
                return path, handle
        os.close(handle)  # a sweeper came between the making and the locking, and took it for a dead one's


def _temporary(name: str = "") -> str:
    return f".{name}.{secrets.token_hex(8)}.tmp" if name else f".{secrets.token_hex(8)}.tmp"


def _temporaries(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder) if name.startswith(".") and name.endswith(".tmp")]


def _names(folder: Path) -> list[str]:
    """What is in a folder; nothing when it is none, or somebody is removing it just now."""
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _locked(path: Path) -> int | None:
    """A handle that holds the lock of what is at `path`; None when its writer lives, or it is gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(handle).st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
