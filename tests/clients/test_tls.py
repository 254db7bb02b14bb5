"""Every client over TLS with a private authority, without and with a certificate of its own."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Authority, Pair
from tests.clients.engines import Engines
from tests.clients.kit import OWN_ADDRESS, Door, Home, Layout, assert_same, missing
from tests.server import running

pytestmark = pytest.mark.clients


@dataclass(frozen=True)
class Secured:
    """A registry that speaks TLS; ``client`` is the pair that clients must show, if they must."""

    port: int
    folder: Path
    authority: Path
    client: Pair | None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def own(self, certificate: str, key: str) -> tuple[str, ...]:
        """The client's pair as two options, or nothing."""
        if self.client is None:
            return ()
        return (certificate, str(self.client.certificate), key, str(self.client.key))

    def certs_d(self, folder: Path) -> Path:
        """A folder as docker and the tools of containers want it."""
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.authority, folder / "ca.crt")
        if self.client is not None:
            shutil.copy(self.client.certificate, folder / "client.cert")
            shutil.copy(self.client.key, folder / "client.key")
        return folder


@pytest.fixture(scope="module", params=["authority", "certificate"])
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A registry with a certificate of a private authority; once more one that wants a client's certificate too."""
    folder = tmp_path_factory.mktemp(request.param)
    authority = Authority(folder / "authority").make()
    pair = authority.server(addresses=[OWN_ADDRESS] if OWN_ADDRESS else [])
    options = ["--tls-certificate", str(pair.certificate), "--tls-key", str(pair.key)]
    client, environment = None, {"MOORAGE_OPEN_ACCESS": "true"}
    if request.param == "certificate":
        client = authority.issue("client", "alice", client=True)
        environment |= {"MOORAGE_TLS_CLIENT_CA": str(authority.certificate), "MOORAGE_TLS_CLIENT_VERIFY": "required"}
    with running(folder / "root", "--host", "0.0.0.0", *options, **environment) as server:
        yield Secured(server.port, folder, authority.certificate, client)
        assert server.stop() == 0, server.log
        assert "Traceback" not in server.log, server.log


@pytest.fixture
def door(secured: Secured) -> Door:
    return Door(f"https://{secured.host}", secured.authority, secured.client)


@pytest.fixture
def reference(secured: Secured, repository: str) -> str:
    return f"{secured.host}/{repository}"


def test_strangers(run: Home, secured: Secured, reference: str) -> None:
    """A client that does not know the authority, or has no certificate where one is wanted, says so."""
    unknown = run("crane", "ls", reference, check=False)
    assert "certificate signed by unknown authority" in unknown.err
    if secured.client is not None:
        bare = run("oras", "repo", "tags", "--ca-file", secured.authority, reference, check=False)
        assert "certificate required" in bare.err


def test_skopeo(run: Home, secured: Secured, reference: str, door: Door, repository: str, image: Layout) -> None:
    """skopeo finds both in the folder that it is given."""
    folder = secured.certs_d(secured.folder / "certs")
    source = f"oci:{image.root}:{image.tag}"
    run("skopeo", "copy", "--preserve-digests", "--dest-cert-dir", folder, source, f"docker://{reference}:v1")
    door.assert_holds(repository, "v1", image)
    seen = run("skopeo", "inspect", "--cert-dir", folder, f"docker://{reference}:v1").json
    assert seen["Digest"] == image.digest


@pytest.mark.parametrize("client", ["podman", "buildah"])
def test_podman_and_buildah(
    run: Home, secured: Secured, reference: str, door: Door, repository: str, image: Layout, client: str
) -> None:
    """podman and buildah find both in the folder that they are given."""
    folder = secured.certs_d(secured.folder / "certs")
    identity = run(client, "pull", f"oci:{image.root}:{image.tag}").lines[-1]
    run(client, "push", "--cert-dir", folder, identity, f"docker://{reference}:v1")
    assert door.tags(repository) == ["v1"]
    run(client, "rmi", "--force", identity)
    assert run(client, "pull", "--cert-dir", folder, f"{reference}:v1").lines[-1] == identity


def test_crane(run: Home, secured: Secured, reference: str, door: Door, repository: str, image: Layout) -> None:
    """crane trusts what SSL_CERT_FILE names; a certificate of its own it cannot show."""
    trusting = {"SSL_CERT_FILE": str(secured.authority)}
    if secured.client is not None:
        assert "certificate required" in run("crane", "ls", reference, environment=trusting, check=False).err
        return
    run("crane", "push", image.root, f"{reference}:v1", environment=trusting)
    door.assert_holds(repository, "v1", image)
    assert run("crane", "ls", reference, environment=trusting).lines == ["v1"]


def test_oras(run: Home, secured: Secured, reference: str, door: Door, repository: str, tmp_path: Path) -> None:
    """oras takes files by options."""
    options = ("--ca-file", str(secured.authority), *secured.own("--cert-file", "--key-file"))
    (tmp_path / "note.txt").write_text("a note\n")
    run("oras", "push", *options, f"{reference}:v1", "note.txt", cwd=tmp_path)
    assert door.tags(repository) == ["v1"]
    run("oras", "pull", *options, "--output", tmp_path / "pulled", f"{reference}:v1")
    assert (tmp_path / "pulled" / "note.txt").read_text() == "a note\n"


def test_regctl(
    run: Home, secured: Secured, reference: str, door: Door, repository: str, image: Layout, tmp_path: Path
) -> None:
    """regctl keeps both in its configuration."""
    options = ["--cacert", secured.authority.read_text()]
    if secured.client is not None:
        pair = secured.client
        options += ["--client-cert", pair.certificate.read_text(), "--client-key", pair.key.read_text()]
    home = {"REGCTL_CONFIG": str(tmp_path / "regctl.json")}
    run("regctl", "registry", "set", "--skip-check", *options, secured.host, environment=home)
    run("regctl", "image", "copy", f"ocidir://{image.root}:{image.tag}", f"{reference}:v1", environment=home)
    door.assert_holds(repository, "v1", image)
    run("regctl", "image", "copy", f"{reference}:v1", f"ocidir://{tmp_path}/pulled:v1", environment=home)
    assert_same(Layout(tmp_path / "pulled", "v1"), image)


def test_helm(run: Home, secured: Secured, reference: str, door: Door, repository: str, tmp_path: Path) -> None:
    """Helm takes files by options."""
    options = ("--ca-file", str(secured.authority), *secured.own("--cert-file", "--key-file"))
    run("helm", "create", "boat", cwd=tmp_path)
    run("helm", "package", "boat", cwd=tmp_path)
    run("helm", "push", *options, tmp_path / "boat-0.1.0.tgz", f"oci://{reference}")
    assert door.tags(f"{repository}/boat") == ["0.1.0"]
    (tmp_path / "pulled").mkdir()
    run("helm", "pull", *options, "--destination", tmp_path / "pulled", f"oci://{reference}/boat")
    assert (tmp_path / "pulled" / "boat-0.1.0.tgz").read_bytes() == (tmp_path / "boat-0.1.0.tgz").read_bytes()


def test_cosign(
    run: Home, secured: Secured, reference: str, door: Door, repository: str, image: Layout, tmp_path: Path
) -> None:
    """Cosign takes files by options, and signs and verifies."""
    own = secured.own("--registry-client-cert", "--registry-client-key")
    options = ("--registry-cacert", str(secured.authority), *own)
    folder = secured.certs_d(secured.folder / "certs")
    source = f"oci:{image.root}:{image.tag}"
    run("skopeo", "copy", "--preserve-digests", "--dest-cert-dir", folder, source, f"docker://{reference}:v1")
    run("cosign", "generate-key-pair", cwd=tmp_path)
    target = f"{reference}@{image.digest}"
    run("cosign", "sign", "--yes", "--tlog-upload=false", *options, "--key", tmp_path / "cosign.key", target)
    assert f"{image.digest.replace(':', '-')}.sig" in door.tags(repository)
    run("cosign", "verify", "--insecure-ignore-tlog", *options, "--key", tmp_path / "cosign.pub", target)


@pytest.fixture
def seen_by_docker(secured: Secured) -> Iterator[str]:
    """The registry's host, whose certificates lie where docker looks for them.

    Docker trusts loopback without looking, so this is the machine's own address.
    """
    host = f"{OWN_ADDRESS or missing('this machine has no address but loopback')}:{secured.port}"
    docker = Path("/etc/docker")
    new = next((each for each in (docker, docker / "certs.d") if not each.exists()), None)
    folder = secured.certs_d(docker / "certs.d" / host)
    yield host
    shutil.rmtree(new or folder)


def test_docker(
    engines: Engines,
    run: Home,
    seen_by_docker: str,
    secured: Secured,
    reference: str,
    door: Door,
    repository: str,
    image: Layout,
) -> None:
    """Docker finds both below /etc/docker/certs.d."""
    folder = secured.certs_d(secured.folder / "certs")
    source = f"oci:{image.root}:{image.tag}"
    run("skopeo", "copy", "--preserve-digests", "--dest-cert-dir", folder, source, f"docker://{reference}:v1")
    name = f"{seen_by_docker}/{repository}"
    engines.docker("pull", f"{name}:v1")
    engines.docker("tag", f"{name}:v1", f"{name}:v2")
    engines.docker("push", f"{name}:v2")
    assert door.tags(repository) == ["v1", "v2"]
    engines.docker("rmi", f"{name}:v1", f"{name}:v2")


def test_containerd(
    engines: Engines, run: Home, secured: Secured, reference: str, image: Layout, tmp_path: Path
) -> None:
    """Containerd finds both by the host's file."""
    folder = secured.certs_d(tmp_path / secured.host)
    own = "" if secured.client is None else f'client = [["{folder}/client.cert", "{folder}/client.key"]]\n'
    hosts = f'server = "https://{secured.host}"\n[host."https://{secured.host}"]\nca = "{folder}/ca.crt"\n{own}'
    (folder / "hosts.toml").write_text(hosts)
    source = f"oci:{image.root}:{image.tag}"
    run("skopeo", "copy", "--preserve-digests", "--dest-cert-dir", folder, source, f"docker://{reference}:v1")
    engines.ctr("images", "pull", "--snapshotter", "native", "--hosts-dir", tmp_path, f"{reference}:v1")
    engines.ctr("images", "tag", f"{reference}:v1", f"{reference}:v2")
    engines.ctr("images", "push", "--hosts-dir", tmp_path, f"{reference}:v2")
    engines.ctr("images", "rm", "--sync", f"{reference}:v1", f"{reference}:v2")
