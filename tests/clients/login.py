"""How each client logs in, pushes and pulls; for tests of any way to show who one is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.clients.kit import Done, Home, Layout

# What podman and its relatives need to speak plain HTTP, and to keep what they push as it is.
_AT = "--tls-verify=false"


@dataclass(frozen=True)
class Client:
    """``login``, ``push`` and ``pull`` give what the client printed, whatever its exit code.

    ``push(run, reference, image, folder, check)`` pushes the image, or something that ``folder`` has room for, as
    ``reference``; ``pull`` gets it back into ``folder``. With ``check`` anything but success fails the test.
    """

    login: Callable[[Home, str, str, str, bool], Done]
    push: Callable[[Home, str, Layout, Path, bool], Done]
    pull: Callable[[Home, str, Path, bool], Done]


def _login(*command: str, user: str = "--username", password: str = "--password") -> Callable[..., Done]:
    def login(run: Home, host: str, name: str, secret: str, check: bool) -> Done:
        return run(*command, user, name, password, secret, host, check=check)

    return login


def _skopeo_push(run: Home, reference: str, image: Layout, folder: Path, check: bool) -> Done:
    source = f"oci:{image.root}:{image.tag}"
    return run("skopeo", "copy", "--dest-tls-verify=false", source, f"docker://{reference}", check=check)


def _skopeo_pull(run: Home, reference: str, folder: Path, check: bool) -> Done:
    return run(
        "skopeo", "copy", "--src-tls-verify=false", f"docker://{reference}", f"dir:{folder}/pulled", check=check
    )


def _podman_push(run: Home, reference: str, image: Layout, folder: Path, check: bool) -> Done:
    name = run("podman", "pull", "--quiet", f"oci:{image.root}:{image.tag}").out.split()[-1]
    return run("podman", "push", _AT, name, f"docker://{reference}", check=check)


def _podman_pull(run: Home, reference: str, folder: Path, check: bool) -> Done:
    run("podman", "rmi", "--all", "--force")
    return run("podman", "pull", _AT, reference, check=check)


def _buildah_push(run: Home, reference: str, image: Layout, folder: Path, check: bool) -> Done:
    name = run("buildah", "pull", "--quiet", f"oci:{image.root}:{image.tag}").out.split()[-1]
    return run("buildah", "push", _AT, name, f"docker://{reference}", check=check)


def _buildah_pull(run: Home, reference: str, folder: Path, check: bool) -> Done:
    run("buildah", "rmi", "--all", "--force")
    return run("buildah", "pull", _AT, reference, check=check)


def _crane_push(run: Home, reference: str, image: Layout, folder: Path, check: bool) -> Done:
    return run("crane", "push", image.root, reference, check=check)


def _crane_pull(run: Home, reference: str, folder: Path, check: bool) -> Done:
    return run("crane", "pull", "--format", "oci", reference, folder / "pulled", check=check)


def _oras_push(run: Home, reference: str, image: Layout, folder: Path, check: bool) -> Done:
    (folder / "note.txt").write_text(f"a note for {reference}\n")
    return run("oras", "push", "--plain-http", reference, "note.txt:text/plain", cwd=folder, check=check)


def _oras_pull(run: Home, reference: str, folder: Path, check: bool) -> Done:
    return run("oras", "pull", "--plain-http", "--output", folder / "pulled", reference, check=check)


def _regctl(run: Home, reference: str) -> tuple[str, ...]:
    return "--host", f"reg={reference.partition('/')[0]},tls=disabled"


def _regctl_login(run: Home, host: str, name: str, secret: str, check: bool) -> Done:
    run("regctl", "registry", "set", "--tls", "disabled", "--skip-check", host)
    return run("regctl", "registry", "login", "--user", name, "--pass", secret, host, check=check)


def _regctl_push(run: Home, reference: str, image: Layout, folder: Path, check: bool) -> Done:
    source = f"ocidir://{image.root}:{image.tag}"
    return run("regctl", *_regctl(run, reference), "image", "copy", source, reference, check=check)


def _regctl_pull(run: Home, reference: str, folder: Path, check: bool) -> Done:
    target = f"ocidir://{folder / 'pulled'}:v1"
    return run("regctl", *_regctl(run, reference), "image", "copy", reference, target, check=check)


def _helm_push(run: Home, reference: str, image: Layout, folder: Path, check: bool) -> Done:
    name, _, _ = reference.rpartition(":")
    above, _, chart = name.rpartition("/")
    run("helm", "create", chart, cwd=folder)
    run("helm", "package", chart, cwd=folder)
    return run("helm", "push", "--plain-http", folder / f"{chart}-0.1.0.tgz", f"oci://{above}", check=check)


def _helm_pull(run: Home, reference: str, folder: Path, check: bool) -> Done:
    name, _, _ = reference.rpartition(":")
    return run("helm", "pull", "--plain-http", f"oci://{name}", "--destination", folder, check=check)


def _cosign_push(run: Home, reference: str, image: Layout, folder: Path, check: bool) -> Done:
    pushed = run("crane", "push", image.root, reference, check=check)
    if not (run.path / "cosign.key").exists():
        run("cosign", "generate-key-pair", cwd=run.path)
    target = f"{reference.rpartition(':')[0]}@{image.digest}"
    options = ("--yes", "--tlog-upload=false", "--allow-http-registry", "--key", run.path / "cosign.key")
    signed = run("cosign", "sign", *options, target, check=check)
    return Done(pushed.out + signed.out, pushed.err + signed.err)


def _cosign_pull(run: Home, reference: str, folder: Path, check: bool) -> Done:
    options = ("--insecure-ignore-tlog", "--allow-http-registry", "--key", run.path / "cosign.pub")
    return run("cosign", "verify", *options, reference, check=check)


CLIENTS = {
    "skopeo": Client(_login("skopeo", "login", _AT), _skopeo_push, _skopeo_pull),
    "podman": Client(_login("podman", "login", _AT), _podman_push, _podman_pull),
    "buildah": Client(_login("buildah", "login", _AT), _buildah_push, _buildah_pull),
    "crane": Client(_login("crane", "auth", "login"), _crane_push, _crane_pull),
    "oras": Client(_login("oras", "login", "--plain-http"), _oras_push, _oras_pull),
    "regctl": Client(_regctl_login, _regctl_push, _regctl_pull),
    "helm": Client(_login("helm", "registry", "login", "--plain-http"), _helm_push, _helm_pull),
    "cosign": Client(_login("cosign", "login"), _cosign_push, _cosign_pull),
}
# These store what they are given, and find out with the next request.
UNCHECKED = ("crane", "cosign")
