"""oras-py, the Python library, pushes files and artifacts from this process."""

import hashlib
from pathlib import Path

import pytest
from oras.client import OrasClient
from oras.oci import Subject

from tests.clients.kit import Door

pytestmark = pytest.mark.clients


@pytest.fixture
def client(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OrasClient:
    """A client that knows neither the credentials nor the proxies of this machine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    client = OrasClient(hostname=host, insecure=True, tls_verify=False)
    client.session.trust_env = False
    return client


@pytest.fixture
def file(client: OrasClient, tmp_path: Path) -> Path:
    """A file of 3 MiB in the working directory."""
    path = tmp_path / "table.bin"
    path.write_bytes(hashlib.shake_128(b"table").digest(3 << 20))
    return path


def digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_push_and_pull(client: OrasClient, file: Path, reference: str, tmp_path: Path) -> None:
    """A file comes back byte for byte under its name."""
    client.push(target=f"{reference}:v1", files=[f"{file.name}:application/octet-stream"], quiet=True)
    (pulled,) = client.pull(target=f"{reference}:v1", outdir=str(tmp_path / "pulled"))
    assert Path(pulled).name == file.name
    assert Path(pulled).read_bytes() == file.read_bytes()


def test_chunked(client: OrasClient, file: Path, reference: str, door: Door, repository: str) -> None:
    """A file pushed in chunks with ``Content-Range`` is whole in the registry."""
    client.push(target=f"{reference}:v1", files=[file.name], do_chunked=True, chunk_size=1_000_000, quiet=True)
    assert door.blob(repository, digest(file)) == digest(file)


def test_folder(client: OrasClient, reference: str, tmp_path: Path) -> None:
    """A folder is packed, pushed, pulled and unpacked."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "note.txt").write_text("a note\n")
    client.push(target=f"{reference}:v1", files=["folder"], quiet=True)
    client.pull(target=f"{reference}:v1", outdir=str(tmp_path / "pulled"))
    assert (tmp_path / "pulled" / "folder" / "note.txt").read_text() == "a note\n"


def test_list(client: OrasClient, file: Path, reference: str) -> None:
    """``get_tags`` follows the pages of the tag list, or stops after the number asked for."""
    for number in range(5):
        client.push(target=f"{reference}:v{number}", files=[file.name], quiet=True)
    assert client.get_tags(reference) == ["v0", "v1", "v2", "v3", "v4"]
    assert client.get_tags(reference, N=2) == ["v0", "v1"]


def test_subject(client: OrasClient, file: Path, reference: str, door: Door, repository: str) -> None:
    """An artifact pushed with a subject is a referrer of it."""
    client.push(target=f"{reference}:v1", files=[file.name], quiet=True)
    content = door.manifest(repository, "v1")
    media_type = client.get_manifest(f"{reference}:v1")["mediaType"]
    subject = Subject(media_type, door.digest(repository, "v1"), len(content))
    client.push(target=f"{reference}:note", files=[file.name], subject=subject, quiet=True)
    (entry,) = door.referrers(repository, subject.digest)
    assert entry["digest"] == door.digest(repository, "note")


def test_copy(client: OrasClient, file: Path, reference: str, door: Door, repository: str) -> None:
    """A manifest and its blobs are copied by hand to another repository: blobs mounted, the manifest put again."""
    client.push(target=f"{reference}:v1", files=[file.name], quiet=True)
    manifest = client.get_manifest(f"{reference}:v1")
    for descriptor in (manifest["config"], *manifest["layers"]):
        query = f"mount={descriptor['digest']}&from={repository}"
        url = f"{door.url}/v2/{repository}-copy/blobs/uploads/?{query}"
        assert client.do_request(url, "POST").status_code == 201
    client.upload_manifest(manifest, client.get_container(f"{reference}-copy:v1"))
    assert client.get_manifest(f"{reference}-copy:v1") == manifest
    assert door.blob(f"{repository}-copy", digest(file)) == digest(file)


def test_delete(client: OrasClient, file: Path, reference: str, door: Door, repository: str) -> None:
    """``delete_tag`` removes the manifest that the tag names; a second time there is nothing to remove."""
    client.push(target=f"{reference}:v1", files=[file.name], quiet=True)
    assert client.delete_tag(reference, "v1") is True
    assert door.tags(repository) == []
    assert client.delete_tag(reference, "v1") is False
