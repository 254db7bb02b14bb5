"""cosign signs and attests images with a local key, by tags and by referrers."""

import base64
import json
from pathlib import Path

import pytest

from tests.clients.kit import Door, Home, Layout

pytestmark = pytest.mark.clients

HTTP = "--allow-http-registry"
SIGN = ("--yes", "--tlog-upload=false", HTTP)
VERIFY = ("--insecure-ignore-tlog", HTTP)
REFERRERS = {"COSIGN_EXPERIMENTAL": "1"}


@pytest.fixture(scope="module")
def keys(run: Home, scratch: Path) -> Path:
    """A folder with a key pair, and a root of trust that names no service of others."""
    folder = scratch / "keys"
    folder.mkdir()
    run("cosign", "generate-key-pair", cwd=folder)
    run("cosign", "trusted-root", "create", "--out", folder / "root.json")
    return folder


@pytest.fixture
def pushed(run: Home, image: Layout, reference: str) -> str:
    """The image in the test's repository, by digest."""
    run("crane", "push", image.root, f"{reference}:v1")
    return f"{reference}@{image.digest}"


def sign(run: Home, keys: Path, target: str) -> None:
    run("cosign", "sign", *SIGN, "--key", keys / "cosign.key", target)


def verified(run: Home, keys: Path, target: str, *options: str, **environment: str) -> str:
    """The digest whose signature cosign verified."""
    options = (*VERIFY, *options, "--key", str(keys / "cosign.pub"))
    (claim,) = run("cosign", "verify", *options, target, environment=environment).json
    digest: str = claim["critical"]["image"]["docker-manifest-digest"]
    return digest


def test_sign_and_verify(
    run: Home, keys: Path, pushed: str, reference: str, door: Door, repository: str, image: Layout
) -> None:
    """A signature is stored under the tag made of the digest, and verifies by digest and by tag."""
    sign(run, keys, pushed)
    assert door.tags(repository) == [f"{image.digest.replace(':', '-')}.sig", "v1"]
    assert verified(run, keys, pushed) == image.digest
    assert verified(run, keys, f"{reference}:v1") == image.digest


def test_unsigned(run: Home, keys: Path, pushed: str) -> None:
    """An image without a signature does not verify, and cosign says why."""
    done = run("cosign", "verify", *VERIFY, "--key", keys / "cosign.pub", pushed, check=False)
    assert "no signatures found" in done.err


def test_sign_again(run: Home, keys: Path, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """A second signature with other annotations joins the first in one manifest."""
    sign(run, keys, pushed)
    run("cosign", "sign", *SIGN, "--annotations", "by=crew", "--key", keys / "cosign.key", pushed)
    content = json.loads(door.manifest(repository, f"{image.digest.replace(':', '-')}.sig"))
    assert len(content["layers"]) == 2
    assert verified(run, keys, pushed, "--annotations", "by=crew") == image.digest


def test_sign_index(run: Home, keys: Path, reference: str, multi: Layout) -> None:
    """``sign --recursive`` signs an index and each of its images."""
    run("crane", "push", multi.root, f"{reference}:v1")
    run("cosign", "sign", "--recursive", *SIGN, "--key", keys / "cosign.key", f"{reference}@{multi.digest}")
    children = [child["digest"] for child in multi.manifest(multi.digest)["manifests"]]
    for digest in (multi.digest, *children):
        assert verified(run, keys, f"{reference}@{digest}") == digest


def test_attest(run: Home, keys: Path, pushed: str, image: Layout, tmp_path: Path) -> None:
    """An attestation is stored, verified, and comes back with the predicate that went in."""
    (tmp_path / "predicate.json").write_text('{"tested": true}')
    predicate = ("--type", "https://example.com/tested", "--predicate", tmp_path / "predicate.json")
    run("cosign", "attest", *SIGN, *predicate, "--key", keys / "cosign.key", pushed)
    run("cosign", "verify-attestation", *VERIFY, *predicate[:2], "--key", keys / "cosign.pub", pushed)
    envelope = run("cosign", "download", "attestation", HTTP, pushed).json
    assert json.loads(base64.b64decode(envelope["payload"]))["predicate"] == {"tested": True}
    assert "Attestations for an image tag" in run("cosign", "tree", HTTP, pushed).out


def test_attach_and_download(run: Home, pushed: str, tmp_path: Path) -> None:
    """A bill of materials attached to an image is downloaded byte for byte."""
    (tmp_path / "sbom.json").write_text('{"spdxVersion": "SPDX-2.3"}')
    run("cosign", "attach", "sbom", HTTP, "--sbom", tmp_path / "sbom.json", "--type", "spdx", pushed)
    assert run("cosign", "download", "sbom", HTTP, pushed).out.strip() == '{"spdxVersion": "SPDX-2.3"}'


def test_referrers(run: Home, keys: Path, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """In referrers mode the signature is a referrer of the image, no tag appears, and it verifies."""
    mode = "--registry-referrers-mode=oci-1-1"
    run("cosign", "sign", *SIGN, mode, "--key", keys / "cosign.key", pushed, environment=REFERRERS)
    (entry,) = door.referrers(repository, image.digest)
    assert entry["artifactType"] == "application/vnd.dev.cosign.artifact.sig.v1+json"
    assert door.tags(repository) == ["v1"]
    assert verified(run, keys, pushed, "--experimental-oci11", **REFERRERS) == image.digest


def test_bundle(run: Home, keys: Path, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """A signature in the new bundle format is a referrer too, and verifies."""
    run("cosign", "sign", *SIGN, "--new-bundle-format", "--key", keys / "cosign.key", pushed)
    (entry,) = door.referrers(repository, image.digest)
    assert entry["artifactType"].startswith("application/vnd.dev.sigstore.bundle")
    root = ("--new-bundle-format", "--trusted-root", keys / "root.json")
    done = run("cosign", "verify", *root, *VERIFY, "--key", keys / "cosign.pub", pushed)
    assert "The signatures were verified against the specified public key" in done.err


def test_copy(run: Home, keys: Path, pushed: str, reference: str, door: Door, repository: str, image: Layout) -> None:
    """``cosign copy`` brings image and signature to another repository, where the signature verifies."""
    sign(run, keys, pushed)
    run("cosign", "copy", HTTP, f"{reference}:v1", f"{reference}-copy:v1")
    door.assert_holds(f"{repository}-copy", "v1", image)
    assert verified(run, keys, f"{reference}-copy@{image.digest}") == image.digest


def test_save_and_load(run: Home, keys: Path, pushed: str, reference: str, image: Layout, tmp_path: Path) -> None:
    """A signed image saved to a folder and loaded into another repository still verifies."""
    sign(run, keys, pushed)
    run("cosign", "save", HTTP, "--dir", tmp_path / "saved", pushed)
    run("cosign", "load", HTTP, "--dir", tmp_path / "saved", f"{reference}-copy:v1")
    assert verified(run, keys, f"{reference}-copy@{image.digest}") == image.digest


def test_clean(run: Home, keys: Path, pushed: str, door: Door, repository: str, image: Layout) -> None:
    """``cosign clean`` deletes signatures and attestations and leaves the image."""
    sign(run, keys, pushed)
    run("cosign", "clean", "--force", "--type", "all", HTTP, pushed)
    assert door.tags(repository) == ["v1"]
    door.assert_holds(repository, "v1", image)
