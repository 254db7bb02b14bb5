"""Real input: images made from Debian's static busybox, and a layer of 1 GiB."""

import gzip
import hashlib
import json
import os
import tarfile
from itertools import chain
from pathlib import Path
from typing import Any

from tests.clients.kit import Home, Layout, missing, sha256

BUSYBOX = Path("/bin/busybox")
MIB = 1 << 20
GIB = 1 << 30


def busybox(run: Home, root: Path, platform: str = "amd64") -> Layout:
    """An image of one platform that says hello, built by umoci."""
    if not BUSYBOX.exists():
        missing("busybox-static is not on this machine")
    if not root.exists():
        run("umoci", "init", "--layout", root)
    image = f"{root}:{platform}"
    run("umoci", "new", "--image", image)
    run("umoci", "insert", "--image", image, BUSYBOX, "/bin/busybox")
    # A second layer, its own for each platform.
    note = root.parent / f"{platform}.txt"
    note.write_text(f"made for {platform}\n")
    run("umoci", "insert", "--image", image, note, "/platform.txt")
    settings = ["--os", "linux", "--architecture", platform, "--config.entrypoint", "/bin/busybox"]
    run("umoci", "config", "--image", image, *settings, "--config.cmd", "cat", "--config.cmd", "/platform.txt")
    run("umoci", "gc", "--layout", root)
    return Layout(root, platform)


def multi_platform(run: Home, root: Path) -> Layout:
    """An image index of two platforms, alone in its layout."""
    images = [busybox(run, root, platform) for platform in ("amd64", "arm64")]
    children = [
        {
            "mediaType": image.descriptor["mediaType"],
            "digest": image.digest,
            "size": image.descriptor["size"],
            "platform": {"os": "linux", "architecture": image.tag},
        }
        for image in images
    ]
    media_type = "application/vnd.oci.image.index.v1+json"
    content = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": children}).encode()
    return _name(root, "multi", media_type, content)


def large(root: Path, size: int = GIB) -> Layout:
    """An image with one layer that holds a file of ``size`` bytes of noise."""
    (root / "blobs" / "sha256").mkdir(parents=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    member = tarfile.TarInfo("noise")
    member.size = size
    plain = hashlib.sha256()
    # Stored, not deflated: clients keep a gzip layer as it is, and no time goes into packing noise.
    with gzip.GzipFile(root / "layer", "wb", compresslevel=0, mtime=0) as packed:
        for piece in chain([member.tobuf()], (os.urandom(MIB) for _ in range(size // MIB)), [bytes(1024)]):
            plain.update(piece)
            packed.write(piece)
    digest = sha256(root / "layer")
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": digest,
        "size": (root / "layer").stat().st_size,
    }
    (root / "layer").rename(root / "blobs" / digest.replace(":", "/"))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{plain.hexdigest()}"]},
    }
    media_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _store(root, "application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
        "layers": [layer],
    }
    return _name(root, "large", media_type, json.dumps(manifest).encode())


def _store(root: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (root / "blobs" / "sha256" / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _name(root: Path, tag: str, media_type: str, content: bytes) -> Layout:
    entry = _store(root, media_type, content)
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return Layout(root, tag)
