"""Files that other programs laid out, for reading: a folder or a tar here, one protocol for these and buckets."""

import asyncio
import bz2
import gzip
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import IO, Any, Final, Protocol, Self

PIECE: Final = 1024 * 1024
_PACKED: Final[dict[bytes, Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


class Tree(Protocol):
    """Files under paths with ``/`` between their parts; an absent file raises ``FileNotFoundError``.

    Opened and closed as an async context manager; what is here is open from the start.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exception: object) -> None: ...

    @property
    def name(self) -> str:
        """The last part of where it is, without an archive's suffix."""

    async def entries(self, folder: str) -> Sequence[str]:
        """What is directly in a folder (``""``: the top), sorted; a folder's name ends in ``/``. Empty if absent."""

    async def size(self, path: str) -> int | None:
        """How many bytes a file has; None if there is none."""

    def read(self, path: str, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes]:
        """The bytes of a file from ``start`` up to ``stop`` (exclusive; None: the end) in pieces.

        Ends early where the file does; raises ``OSError``.
        """


PLACES: Final = ("docker/registry/v2/", "registry/v2/", "v2/", "")


async def storage_place(tree: Tree) -> str | None:
    """Where a storage tree of distribution has its blobs and repositories, if it is one."""
    for place in PLACES:
        if {"blobs/", "repositories/"} <= set(await tree.entries(place)):
            return place
    return None


def data_path(place: str, algorithm: str, encoded: str) -> str:
    """The path of a digest's bytes in a storage tree of distribution."""
    return f"{place}blobs/{algorithm}/{encoded[:2]}/{encoded}/data"


class FolderTree:
    """The files of a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        pass

    @property
    def name(self) -> str:
        return self._root.resolve().name

    async def entries(self, folder: str) -> list[str]:
        return await asyncio.to_thread(self._entries, folder)

    def _entries(self, folder: str) -> list[str]:
        try:
            with os.scandir(self._root / folder) as entries:
                return sorted(each.name + ("/" if each.is_dir() else "") for each in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []

    async def size(self, path: str) -> int | None:
        try:
            found = await asyncio.to_thread((self._root / path).stat)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    async def read(self, path: str, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes]:
        size = await self.size(path)
        if size is None:  # a pipe would be waited for
            raise FileNotFoundError(f"{path} is not there")
        stop = size if stop is None else min(stop, size)
        with await asyncio.to_thread((self._root / path).open, "rb", buffering=0) as file:
            while start < stop and (piece := await _piece(file, start, stop)):
                yield piece
                start += len(piece)

    async def write(self, path: str, pieces: AsyncGenerator[bytes]) -> None:
        """Make a file; it is there with all that ``pieces`` give, or as it was."""
        target = self._root / path
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        try:
            with await asyncio.to_thread(part.open, "wb", buffering=0) as file:
                async for piece in pieces:
                    await asyncio.to_thread(_write, file, piece)
            await asyncio.to_thread(part.replace, target)
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)


class TarTree:
    """The files of a tar, links followed; what is packed is unpacked into a temporary file first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = _plain(path)
        self._members: dict[str, tuple[int, int]] = {}  # where in the file, and how many bytes
        self._folders: dict[str, set[str]] = {"": set()}
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            members = {posixpath.normpath(each.name): each for each in archive}
        for name, each in members.items():
            found = _followed(members, name)
            if found is not None and found.isreg() and not found.issparse():
                self._add(name, found)
            elif each.isdir():
                self._folders.setdefault("" if name == "." else name, set())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._file.close()

    def _add(self, name: str, member: tarfile.TarInfo) -> None:
        self._members[name] = member.offset_data, member.size
        while name:
            folder, _, last = name.rpartition("/")
            self._folders.setdefault(folder, set()).add(last + ("" if name in self._members else "/"))
            name = folder

    @property
    def name(self) -> str:
        return self._path.name.partition(".")[0]

    async def entries(self, folder: str) -> list[str]:
        return sorted(self._folders.get(folder.rstrip("/"), ()))

    async def size(self, path: str) -> int | None:
        return self._members[path][1] if path in self._members else None

    async def read(self, path: str, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes]:
        if path not in self._members:
            raise FileNotFoundError(f"{path} is not there")
        at, size = self._members[path]
        start, stop = at + start, at + (size if stop is None else min(stop, size))
        while start < stop:
            piece = await _piece(self._file, start, stop)
            if not piece:
                raise OSError(f"{path} is cut short")
            yield piece
            start += len(piece)


def open_tree(path: Path) -> Tree:
    """The tree at ``path``: a folder or a tar, packed or not. Raises ``OSError``, ``tarfile.TarError``."""
    return FolderTree(path) if path.is_dir() else TarTree(path)


async def _piece(file: IO[bytes], start: int, stop: int) -> bytes:
    return await asyncio.to_thread(os.pread, file.fileno(), min(stop - start, PIECE), start)


def _plain(path: Path) -> IO[bytes]:
    file = path.open("rb")
    head = file.read(6)
    unpack = next((each for magic, each in _PACKED.items() if head.startswith(magic)), None)
    file.seek(0)
    if unpack is None:
        return file
    plain = tempfile.TemporaryFile()  # noqa: SIM115  read as long as the tree is there
    try:
        with file, unpack(file) as packed:
            shutil.copyfileobj(packed, plain, PIECE)
    except (EOFError, lzma.LZMAError) as error:
        raise OSError(f"{path} is cut short or damaged: {error}") from error
    plain.seek(0)
    return plain


def _followed(members: dict[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo | None:
    """The member that ``name`` leads to; old archives name a layer that stands twice by a link."""
    for _ in range(len(members)):
        found = members.get(name)
        if found is None or not (found.issym() or found.islnk()):
            return found
        base = posixpath.dirname(name) if found.issym() else ""
        name = posixpath.normpath(posixpath.join(base, found.linkname))
    return None


def _write(file: Any, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]
