"""A storage tree as distribution lays it out, made by hand where a test needs one that no registry would write."""

import os
from pathlib import Path

from tests.support import CONFIG, LAYER, Json, digest_of, encode, image


class DistributionTree:
    """The tree in ``root``; its methods give back digests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = root / "docker" / "registry" / "v2"
        (self.top / "blobs").mkdir(parents=True)
        (self.top / "repositories").mkdir()

    def data(self, digest: str) -> Path:
        encoded = digest.partition(":")[2]
        return self.top / "blobs" / "sha256" / encoded[:2] / encoded / "data"

    def blob(self, content: bytes) -> str:
        path = self.data(digest := digest_of(content))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return digest

    def repository(self, name: str) -> Path:
        return self.top / "repositories" / name

    def revision(self, name: str, digest: str) -> Path:
        return self.repository(name) / "_manifests" / "revisions" / digest.replace(":", "/") / "link"

    def tag(self, name: str, tag: str) -> Path:
        return self.repository(name) / "_manifests" / "tags" / tag / "current" / "link"

    def push(self, name: str, document: Json, *tags: str) -> str:
        """A manifest, over blobs that are there."""
        digest = self.blob(encode(document))
        for path in (self.revision(name, digest), *(self.tag(name, each) for each in tags)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(digest)
        return digest

    def push_image(self, name: str, number: int, *tags: str) -> str:
        """An image with a layer of its own."""
        layer = b"%d" % number + LAYER
        self.blob(CONFIG)
        self.blob(layer)
        return self.push(name, image(layers=[layer]), *tags)

    def listing(self) -> dict[str, tuple[int, int, bytes]]:
        """Every path with its mode, the time it was changed, and its bytes."""
        found = {}
        for folder, _, files in os.walk(self.root):
            for path in (Path(folder), *(Path(folder, each) for each in files)):
                state = path.lstat()
                content = path.read_bytes() if path.is_file() else b""
                found[str(path)] = state.st_mode, state.st_mtime_ns, content
        return found
