"""A root with things around it that no request may touch, and the tree that a root may hold."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SECRET: Final = b"never to be read through a registry: 6f1c"
# docs: the tree on the disk; blobs/xx/xx… are named by random keys.
_ALLOWED: Final = re.compile(
    r"moorage\.db(-wal|-shm|-journal)?|moorage\.lock|blobs|blobs/[0-9a-f]{2}|blobs/(?P<two>[0-9a-f]{2})/(?P=two)[0-9a-f]{30}"
)
_OUTSIDE: Final = (
    "secret", "etc/passwd", "v2/secret", "blobs/secret", "blobs/sha256/44/secret", "uploads/secret", "root.d/secret",
)  # fmt: skip


@dataclass(frozen=True)
class Sentinel:
    """``around`` holds ``root`` and files that look like what an attacker wants."""

    around: Path
    before: dict[str, bytes]

    @classmethod
    def plant(cls, around: Path) -> "Sentinel":
        for name in _OUTSIDE:
            file = around / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(SECRET)
        return cls(around, _tree(around))

    @property
    def root(self) -> Path:
        return self.around / "root"

    def check(self) -> None:
        """Nothing around the root was made, changed or removed, and the root holds what is documented."""
        assert _tree(self.around, leave_out="root") == self.before
        for path in self.root.rglob("*"):
            name = path.relative_to(self.root).as_posix()
            assert _ALLOWED.fullmatch(name), name
            assert not path.is_symlink(), name


def _tree(folder: Path, leave_out: str | None = None) -> dict[str, bytes]:
    return {
        name: b"" if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if (name := path.relative_to(folder).as_posix()).partition("/")[0] != leave_out
    }
