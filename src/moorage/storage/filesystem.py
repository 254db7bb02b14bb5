"""Bytes in files.

    <root>/ab/ab12cd…             one file an object, named by its key; folders are made when first needed
    <root>/ab/ab34ef…/<start>     an object composed of large parts is a folder of hard links to their files, each
                                  named by where it starts (16 hexadecimal digits): nothing is copied

There is no temporary name and no rename: nothing reads a key before a fact names it, and that happens only after
the file and its folder are synced. A crash leaves at most a file that no fact names.
"""

import asyncio
import errno
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import Final, Self, TypeVar, TypeVarTuple

from moorage.spec.errors import StorageFull
from moorage.storage.base import Key, Piece, new_key
from moorage.storage.stretch import NOWAIT, FileStretch

# With what TLS adds (22 bytes for each 16 KiB) it fits two segments of the loopback, 65,483 bytes each; whole pages.
PIECE: Final = 30 * 4096
_WHOLE: Final = 1024 * 1024  # what is not longer is read at once: the kernel takes it at once, too
_HELD: Final = 128 * 1024  # a smaller object is written, synced and closed in one visit to a thread
_MOST_PIECES: Final = 512  # below every system's limit for one gathered write
_THREADS: Final = 16
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")
_COPIED: Final = 64 * 1024 * 1024
_NOT_COPIED: Final = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP)  # not by this kernel or file system
_LINKED: Final = 1024 * 1024  # bytes of a part, on average, from which on it is linked: readers open each
_NOT_LINKED: Final = (errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EXDEV, errno.ENOTSUP)
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(detail={"reason": os.strerror(error.errno)}) from error
        raise


class _File:
    """One new file and its blocking steps; each is done in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def open(self) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                self._descriptor = os.open(self._path, flags, 0o600)
            except FileNotFoundError:
                _make_folder(self._path.parent)
                self._descriptor = os.open(self._path, flags, 0o600)
        return self._descriptor

    def append(self, pieces: list[bytes]) -> None:
        with _translated():
            _write_all(self.open(), pieces)

    def sync(self, pieces: list[bytes]) -> None:
        """Write the last ``pieces``; the file is durable and closed on return."""
        with _translated():
            _write_all(self.open(), pieces)
            os.fsync(self.open())
            self._close()
            _sync_folder(self._path.parent)

    def remove(self, pending: Future[None] | None = None) -> None:
        """Nothing remains on return, whatever ``pending`` was doing."""
        if pending is not None:
            pending.exception()  # waits; what went wrong is known to the caller
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


class _FileWriter:
    """Writes in a thread while the caller receives what comes next; one write is under way at a time."""

    def __init__(self, path: Path, threads: ThreadPoolExecutor) -> None:
        self._file = _File(path)
        self._threads = threads
        self._held: list[bytes] = []
        self._held_size = 0
        self._pending: Future[None] | None = None

    async def write(self, pieces: Sequence[bytes]) -> None:
        self._held += pieces
        self._held_size += sum(map(len, pieces))
        if self._held_size > _HELD:
            await self._settled()
            held, self._held, self._held_size = self._held, [], 0
            self._pending = self._threads.submit(self._file.append, held)

    async def finish(self) -> None:
        await self._settled()
        self._pending = self._threads.submit(self._file.sync, self._held)
        await self._settled()

    async def abandon(self) -> None:
        # The thread goes on whatever happens to this task, so nothing remains even when it is cancelled again.
        await self._done(self._threads.submit(self._file.remove, self._pending))

    async def _settled(self) -> None:
        if self._pending is not None:
            await self._done(self._pending)
            self._pending = None

    async def _done(self, work: Future[None]) -> None:
        # Shielded: cancelling the task must not take the work out of the queue behind our back.
        await asyncio.shield(asyncio.wrap_future(work))


class FilesystemBlobStore:
    """A ``BlobStore`` in the files below ``root``, which is made if it is not there unless ``read_only``."""

    def __init__(self, root: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self.root = Path(root)
        self._folder = str(root)  # a path's making costs more than the file's opening
        self._read_only = read_only
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="moorage-files")

    async def __aenter__(self) -> Self:
        if not self._read_only:
            _make_folder(self.root)
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._threads.shutdown()

    @asynccontextmanager
    async def write(self, key: Key) -> AsyncIterator[_FileWriter]:
        writer = _FileWriter(self._path(key), self._threads)
        try:
            yield writer
            await writer.finish()
        except BaseException:
            await writer.abandon()
            raise

    async def read(self, key: Key, start: int = 0, stop: int | None = None) -> AsyncGenerator[Piece]:
        file = os.open(f"{self._folder}/{key}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if stat.S_ISDIR(status.st_mode):
                async with aclosing(self._read_parts(key, start, sys.maxsize if stop is None else stop)) as pieces:
                    async for each in pieces:
                        yield each
                return
            end = status.st_size if stop is None else min(stop, status.st_size)
            while start < end:
                size = PIECE if end - start > _WHOLE else end - start
                piece: Piece | None = _read_hot(file, start, size)
                if piece is None:
                    piece = await self._in_thread(os.pread, file, size, start)
                if not piece:
                    return
                start += len(piece)
                yield piece
        finally:
            os.close(file)

    async def _read_parts(self, key: Key, start: int, stop: int) -> AsyncGenerator[Piece]:
        names = sorted(await self._in_thread(os.listdir, self._path(key)))
        begins = [int(name, 16) for name in names]
        for name, begin, end in zip(names, begins, [*begins[1:], sys.maxsize], strict=True):
            if begin <= start < end:  # else it comes before them, or what comes before it is cut short
                async with aclosing(self.read(f"{key}/{name}", start - begin, min(stop, end) - begin)) as pieces:
                    async for piece in pieces:
                        start += len(piece)
                        yield piece

    def stretch(self, key: Key, start: int, stop: int) -> FileStretch | None:
        if stop - start <= _WHOLE:
            return None
        file = os.open(f"{self._folder}/{key}", os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and stop <= status.st_size:
            return FileStretch(file, start, stop, self._threads)
        os.close(file)
        return None

    async def size(self, key: Key) -> int:
        path = self._path(key)
        if path.is_dir():
            return await self._in_thread(_size_of_parts, path)
        return path.stat().st_size

    async def compose(self, keys: Sequence[Key]) -> Key:
        if len(keys) == 1:
            return keys[0]
        into = new_key()
        await self._in_thread(_compose, [self._path(key) for key in keys], self._path(into))
        return into

    async def delete(self, keys: Sequence[Key]) -> None:
        await self._in_thread(_remove, [self._path(key) for key in keys])

    async def list(self, prefix: str = "") -> AsyncIterator[Key]:
        for folder in sorted(await self._in_thread(os.listdir, self.root)):
            if folder.startswith(prefix[:2]) and (self.root / folder).is_dir():
                for name in await self._in_thread(os.listdir, self.root / folder):
                    if (key := f"{folder}/{name}").startswith(prefix):
                        yield key

    async def url(self, key: Key, expires: float) -> str | None:  # noqa: ARG002  files have no address
        return None

    def _path(self, key: Key) -> Path:
        return self.root / key

    async def _in_thread(self, work: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _read_hot(file: int, start: int, size: int) -> bytearray | None:
    """What of ``size`` bytes is in the page cache, or None if that can't be had without waiting."""
    if NOWAIT is None:
        return None
    piece = bytearray(size)
    try:
        count = os.preadv(file, [piece], start, NOWAIT)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
            return None
        raise
    if count < size:
        del piece[count:]
    return piece


def _write_all(file: int, pieces: list[bytes]) -> None:
    if len(pieces) > _MOST_PIECES:
        pieces = [b"".join(pieces)]
    left = [piece for piece in pieces if piece]
    while left:
        count = os.writev(file, left)
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if count:
            left[0] = left[0][count:]


def _compose(paths: Sequence[Path], into: Path) -> None:
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    sizes = [file.stat().st_size for file in files]
    if sum(sizes) >= _LINKED * len(files):
        try:
            _link(files, sizes, into)
        except OSError as error:
            if error.errno not in _NOT_LINKED:
                raise
        else:
            return
    _join(files, into)


def _link(files: Sequence[Path], sizes: Sequence[int], into: Path) -> None:
    _make_folder(into)
    try:
        with _translated():
            for file, size, start in zip(files, sizes, accumulate(sizes, initial=0), strict=False):
                if size:
                    os.link(file, into / f"{start:016x}")
            _sync_folder(into)
    except BaseException:
        _remove([into])
        raise


def _size_of_parts(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _join(paths: Sequence[Path], into: Path) -> None:
    file = _File(into)
    try:
        with _translated():
            for path in paths:
                _copy(path, file.open())
        file.sync([])
    except BaseException:
        file.remove()
        raise


def _copy(path: Path, target: int) -> None:
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            while os.copy_file_range(source, target, _COPIED):
                pass
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NOT_COPIED:
                raise
            while piece := os.read(source, PIECE):  # from where the kernel stopped
                _write_all(target, [piece])
    finally:
        os.close(source)


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        if not path.is_dir():
            path.unlink(missing_ok=True)
            continue
        with suppress(FileNotFoundError):  # somebody else removes it
            for file in path.iterdir():
                file.unlink(missing_ok=True)
            path.rmdir()


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        with _translated():
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
