"""helm pushes charts and installs from them."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.clients.kit import Door, Home, sha256

pytestmark = pytest.mark.clients

HTTP = "--plain-http"


@pytest.fixture(scope="module")
def charts(run: Home, scratch: Path) -> Path:
    """A folder with the packages of two versions of one chart."""
    folder = scratch / "charts"
    folder.mkdir()
    run("helm", "create", "boat", cwd=folder)
    for version in ("0.1.0", "0.2.0+build.7"):
        run("helm", "package", "--version", version, "boat", cwd=folder)
    return folder


@pytest.fixture
def pushed(run: Home, charts: Path, reference: str) -> str:
    """The chart's URL, with both versions pushed."""
    for package in sorted(charts.glob("*.tgz")):
        run("helm", "push", HTTP, package, f"oci://{reference}")
    return f"oci://{reference}/boat"


def test_push(pushed: str, door: Door, repository: str, charts: Path) -> None:
    """The chart is served byte for byte under its version, where ``_`` stands for ``+``."""
    assert door.tags(f"{repository}/boat") == ["0.1.0", "0.2.0_build.7"]
    content = json.loads(door.manifest(f"{repository}/boat", "0.1.0"))
    assert content["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json"
    (layer,) = content["layers"]
    assert layer["digest"] == sha256(charts / "boat-0.1.0.tgz")
    assert door.blob(f"{repository}/boat", layer["digest"]) == layer["digest"]


@pytest.mark.parametrize(
    ("wanted", "package"),
    [
        ("0.1.0", "boat-0.1.0.tgz"),
        ("0.2.0+build.7", "boat-0.2.0+build.7.tgz"),
        ("~0.1", "boat-0.1.0.tgz"),
        (">0.0.1", "boat-0.2.0+build.7.tgz"),
    ],
)
def test_pull(run: Home, pushed: str, charts: Path, tmp_path: Path, wanted: str, package: str) -> None:
    """A version, or a range that helm finds in the tag list, is pulled byte for byte."""
    run("helm", "pull", HTTP, "--version", wanted, "--destination", tmp_path, pushed)
    assert (tmp_path / package).read_bytes() == (charts / package).read_bytes()


def test_show_and_render(run: Home, pushed: str) -> None:
    """``show`` and ``template`` work on a chart in the registry."""
    assert "\nversion: 0.1.0\n" in run("helm", "show", "chart", HTTP, "--version", "0.1.0", pushed).out
    assert "kind: Service\n" in run("helm", "template", HTTP, "trip", pushed).out


def test_dependency(run: Home, pushed: str, reference: str, tmp_path: Path) -> None:
    """A chart that depends on one in the registry gets it into its ``charts`` folder."""
    run("helm", "create", "harbor", cwd=tmp_path)
    entry = {"name": "boat", "version": "0.1.0", "repository": f"oci://{reference}"}
    with (tmp_path / "harbor" / "Chart.yaml").open("a") as file:
        file.write(f"\ndependencies: {json.dumps([entry])}\n")
    run("helm", "dependency", "update", HTTP, "harbor", cwd=tmp_path)
    with tarfile.open(tmp_path / "harbor" / "charts" / "boat-0.1.0.tgz") as archive:
        assert "boat/Chart.yaml" in archive.getnames()


def test_provenance(run: Home, charts: Path, reference: str, door: Door, repository: str, tmp_path: Path) -> None:
    """A provenance file beside the chart is pushed with it and comes back byte for byte."""
    package = tmp_path / "boat-0.1.0.tgz"
    package.write_bytes((charts / package.name).read_bytes())
    (tmp_path / f"{package.name}.prov").write_text("-----BEGIN PGP SIGNED MESSAGE-----\n")
    run("helm", "push", HTTP, package, f"oci://{reference}")
    assert len(json.loads(door.manifest(f"{repository}/boat", "0.1.0"))["layers"]) == 2
    (tmp_path / "pulled").mkdir()
    options = ("--prov", "--version", "0.1.0", "--destination", tmp_path / "pulled")
    run("helm", "pull", HTTP, *options, f"oci://{reference}/boat")
    for name in (package.name, f"{package.name}.prov"):
        assert (tmp_path / "pulled" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_copy_and_delete(run: Home, pushed: str, door: Door, repository: str) -> None:
    """A chart is copied to another repository and deleted by crane, since helm can do neither."""
    source = pushed.removeprefix("oci://")
    done = run("crane", "--verbose", "copy", f"{source}:0.1.0", f"{source}-copy:0.1.0")
    assert done.err.count("mounted blob:") == 2
    run("crane", "delete", f"{source}:0.1.0")
    assert door.tags(f"{repository}/boat") == ["0.2.0_build.7"]
    assert "\nversion: 0.1.0\n" in run("helm", "show", "chart", HTTP, f"{pushed}-copy").out
    gone = run("helm", "show", "chart", HTTP, "--version", "0.1.0", pushed, check=False)
    assert "not found" in gone.err
