"""oras pushes files as artifacts and attaches artifacts to others."""

import json
from pathlib import Path

import pytest

from tests.clients.kit import Door, Home, Layout, assert_same

pytestmark = pytest.mark.clients

HTTP = "--plain-http"
NOTE = "application/vnd.example.note"
REPORT = "application/vnd.example.report"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with two files and a subfolder."""
    folder = tmp_path / "files"
    (folder / "more").mkdir(parents=True)
    (folder / "note.txt").write_text("a note\n")
    (folder / "table.bin").write_bytes(bytes(range(256)) * 4096)
    (folder / "more" / "deep.txt").write_text("deep\n")
    return folder


@pytest.fixture
def pushed(run: Home, files: Path, reference: str) -> str:
    """The test's repository, with the files as artifact ``v1``."""
    names = ["note.txt:text/plain", "table.bin", "more"]
    run("oras", "push", HTTP, "--artifact-type", NOTE, f"{reference}:v1", *names, cwd=files)
    return reference


def attach(run: Home, target: str, folder: Path, text: str) -> str:
    """Attach a report to the target, and return its digest."""
    (folder / "report.json").write_text(json.dumps({"report": text}))
    names = ["--artifact-type", REPORT, "--annotation", f"text={text}", target, "report.json:application/json"]
    digest: str = run("oras", "attach", HTTP, "--format", "json", *names, cwd=folder).json["digest"]
    return digest


def test_push_and_pull(run: Home, pushed: str, files: Path, tmp_path: Path) -> None:
    """Files and folders come back byte for byte under their own names."""
    run("oras", "pull", HTTP, "--output", tmp_path / "pulled", f"{pushed}:v1")
    for path in (Path("note.txt"), Path("table.bin"), Path("more") / "deep.txt"):
        assert (tmp_path / "pulled" / path).read_bytes() == (files / path).read_bytes()


def test_artifact(pushed: str, door: Door, repository: str) -> None:
    """The manifest is served with the artifact type and titles that oras gave it."""
    content = json.loads(door.manifest(repository, "v1"))
    assert content["artifactType"] == NOTE
    titles = [layer["annotations"]["org.opencontainers.image.title"] for layer in content["layers"]]
    assert titles == ["note.txt", "table.bin", "more"]


def test_list(run: Home, pushed: str, host: str, repository: str) -> None:
    """``repo tags`` and ``repo ls`` show what is there, also from a place in the middle."""
    run("oras", "tag", HTTP, f"{pushed}:v1", "v2", "v3")
    assert run("oras", "repo", "tags", HTTP, pushed).lines == ["v1", "v2", "v3"]
    assert run("oras", "repo", "tags", HTTP, "--last", "v1", pushed).lines == ["v2", "v3"]
    assert repository in run("oras", "repo", "ls", HTTP, host).lines
    folder, _, name = repository.rpartition("/")
    assert name in run("oras", "repo", "ls", HTTP, f"{host}/{folder}").lines


def test_blob(run: Home, reference: str, door: Door, repository: str, tmp_path: Path) -> None:
    """A blob alone is pushed, fetched byte for byte, and deleted."""
    (tmp_path / "blob").write_bytes(bytes(range(256)) * 1000)
    digest = run("oras", "blob", "push", HTTP, "--descriptor", reference, tmp_path / "blob").json["digest"]
    run("oras", "blob", "fetch", HTTP, "--output", tmp_path / "fetched", f"{reference}@{digest}")
    assert (tmp_path / "fetched").read_bytes() == (tmp_path / "blob").read_bytes()
    run("oras", "blob", "delete", HTTP, "--force", f"{reference}@{digest}")
    assert not door.has(repository, "blobs", digest)


def test_image(run: Home, reference: str, door: Door, repository: str, multi: Layout, tmp_path: Path) -> None:
    """``cp`` brings a multi-platform image from a layout to several tags, and back byte for byte."""
    source = f"{multi.root}:{multi.tag}"
    run("oras", "cp", "--from-oci-layout", "--to-plain-http", source, f"{reference}:v1,v2")
    door.assert_holds(repository, "v1", multi)
    assert door.tags(repository) == ["v1", "v2"]
    run("oras", "cp", "--from-plain-http", "--to-oci-layout", f"{reference}:v1", f"{tmp_path / 'pulled'}:v1")
    assert_same(Layout(tmp_path / "pulled", "v1"), multi)


def test_attach_and_discover(run: Home, pushed: str, door: Door, repository: str, tmp_path: Path) -> None:
    """Artifacts attached to an artifact are its referrers; a filter by type keeps those of that type."""
    subject = door.digest(repository, "v1")
    report = attach(run, f"{pushed}:v1", tmp_path, "first")
    other = run(
        "oras", "attach", HTTP, "--artifact-type", NOTE, "--annotation", "a=b", "--format", "json", f"{pushed}:v1"
    )
    found = run("oras", "discover", HTTP, "--format", "json", f"{pushed}:v1").json["referrers"]
    assert {entry["digest"] for entry in found} == {report, other.json["digest"]}
    found = run("oras", "discover", HTTP, "--format", "json", "--artifact-type", REPORT, f"{pushed}:v1").json[
        "referrers"
    ]
    assert [(entry["digest"], entry["artifactType"]) for entry in found] == [(report, REPORT)]
    assert found[0]["annotations"]["text"] == "first"
    # The API answered, not the tag that stands in for it on older registries.
    assert {entry["digest"] for entry in door.referrers(repository, subject)} == {report, other.json["digest"]}
    assert door.tags(repository) == ["v1"]


def test_chain_of_referrers(run: Home, pushed: str, tmp_path: Path) -> None:
    """A report on a report on an artifact is found from the artifact."""
    first = attach(run, f"{pushed}:v1", tmp_path, "first")
    second = attach(run, f"{pushed}@{first}", tmp_path, "second")
    (found,) = run("oras", "discover", HTTP, "--format", "json", f"{pushed}:v1").json["referrers"]
    assert found["digest"] == first
    assert [entry["digest"] for entry in found["referrers"]] == [second]


def test_referrer_of_index(run: Home, reference: str, multi: Layout, tmp_path: Path) -> None:
    """An artifact can be attached to one platform of a multi-platform image."""
    source = f"{multi.root}:{multi.tag}"
    run("oras", "cp", "--from-oci-layout", "--to-plain-http", source, f"{reference}:v1")
    arm = multi.manifest(multi.digest)["manifests"][1]["digest"]
    report = attach(run, f"{reference}@{arm}", tmp_path, "for arm64")
    (found,) = run("oras", "discover", HTTP, "--format", "json", "--platform", "linux/arm64", f"{reference}:v1").json[
        "referrers"
    ]
    assert found["digest"] == report


def test_copy_with_referrers(run: Home, pushed: str, door: Door, repository: str, tmp_path: Path) -> None:
    """``cp -r`` to another repository mounts the blobs and brings the referrers along."""
    report = attach(run, f"{pushed}:v1", tmp_path, "first")
    http = ["--from-plain-http", "--to-plain-http"]
    done = run("oras", "cp", "--recursive", "--debug", *http, f"{pushed}:v1", f"{pushed}-copy:v1")
    assert done.text.count("Mounted") >= 4
    assert 'Request method: "PATCH"' not in done.text
    subject = door.digest(repository, "v1")
    assert door.digest(f"{repository}-copy", "v1") == subject
    assert [entry["digest"] for entry in door.referrers(f"{repository}-copy", subject)] == [report]


def test_backup_and_restore(run: Home, pushed: str, door: Door, repository: str, tmp_path: Path) -> None:
    """A backup with referrers, restored to another repository, is the same there."""
    report = attach(run, f"{pushed}:v1", tmp_path, "first")
    copy = tmp_path / "backup.tar"
    run("oras", "backup", HTTP, "--include-referrers", "--output", copy, f"{pushed}:v1")
    run("oras", "restore", HTTP, "--input", copy, f"{pushed}-copy:v1")
    subject = door.digest(repository, "v1")
    assert door.digest(f"{repository}-copy", "v1") == subject
    assert [entry["digest"] for entry in door.referrers(f"{repository}-copy", subject)] == [report]


def test_delete(run: Home, pushed: str, door: Door, repository: str, tmp_path: Path) -> None:
    """A deleted referrer is no longer found; a deleted manifest is gone with its tags."""
    report = attach(run, f"{pushed}:v1", tmp_path, "first")
    run("oras", "manifest", "delete", HTTP, "--force", f"{pushed}@{report}")
    assert run("oras", "discover", HTTP, "--format", "json", f"{pushed}:v1").json["referrers"] == []
    run("oras", "manifest", "delete", HTTP, "--force", f"{pushed}:v1")
    assert not door.has(repository, "manifests", "v1")
    assert door.tags(repository) == []
