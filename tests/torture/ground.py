"""What a server stands on, and how it is cut off: by SIGKILL, or by a power cut that takes what was not synced."""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from tests.server import Server

# FS_IOC_SHUTDOWN of the kernel's uapi/linux/fs.h: ext4 then drops all that is not on the disk, its journal included.
_SHUTDOWN = 0x8004587D
_WITHOUT_LOG_FLUSH = 2
_SIZE = "4G"  # sparse


class Ground(Protocol):
    """``breaks``: while it is cut off, the server may still run on a broken disk and say so."""

    folder: Path
    breaks: bool

    def cut(self, server: Server) -> None:
        """End the server, as it would end for real; what it left can be read on return."""


class Kept:
    """A folder that outlives the server: SIGKILL takes nothing that the kernel was given."""

    breaks = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cut(self, server: Server) -> None:
        server.kill()


class Disk:
    """An ext4 file system in a file, whose power can be cut."""

    breaks = True

    def __init__(self, image: Path, folder: Path) -> None:
        self.folder = folder
        self._image = image

    def cut(self, server: Server) -> None:
        self._lose()
        server.kill()
        self._return()

    def cut_unused(self) -> None:
        """Cut its power where nothing has a file open on it."""
        self._lose()
        self._return()

    def _lose(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def _return(self) -> None:
        unmount(self.folder)
        self.mount()

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.folder))


@contextmanager
def disk(scratch: Path) -> Iterator[Disk]:
    """An empty ``Disk`` with its image and mount point in ``scratch``."""
    image, folder = scratch / "disk.img", scratch / "disk"
    folder.mkdir()
    _run("truncate", "-s", _SIZE, str(image))
    _run("mkfs.ext4", "-q", "-F", "-i", "8192", str(image))
    made = Disk(image, folder)
    made.mount()
    try:
        yield made
    finally:
        unmount(folder)
        image.unlink()


def why_no_disk() -> str | None:
    """What keeps a power cut from being tried on this machine, or None."""
    if os.geteuid() != 0:
        return "only root may mount a disk to cut its power"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    return None if shutil.which("mkfs.ext4") else "mkfs.ext4 is missing"


def unmount(folder: Path) -> None:
    """Killed processes may hold files for a moment more."""
    deadline = time.monotonic() + 10
    while True:
        done = subprocess.run(["umount", str(folder)], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, done.stderr.strip(), str(folder))
        time.sleep(0.02)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
