"""What stands in deploy/ is right by the linters of its own kind, and names settings and endpoints that there are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moorage import __version__
from moorage.config import load
from tests.clients.kit import missing, tool

pytestmark = pytest.mark.deploy

DEPLOY = Path(__file__).parents[1] / "deploy"
CHART = DEPLOY / "helm" / "moorage"
KUBERNETES = "1.33.0"
NEEDED = {"settings.storage": "s3://bucket/registry", "settings.metadata": "postgresql://moorage@db:5432/moorage"}
# Every part of the chart is in one of these.
RELEASES: dict[str, dict[str, str]] = {
    "plain": {},
    "everything": {
        "ingress.enabled": "true",
        "ingress.className": "nginx",
        "autoscaling.enabled": "true",
        "networkPolicy.enabled": "true",
        "secret.values.MOORAGE_METADATA_PASSWORD": "sesame",
        "serviceAccount.annotations.eks\\.amazonaws\\.com/role-arn": "arn:aws:iam::1:role/registry",
        "settings.object_part_size": "16777216",
        "settings.redirect": "always",
    },
    "ours": {"secret.existing": "mine", "serviceAccount.create": "false", "podDisruptionBudget.enabled": "false"},
}


def program(name: str) -> str:
    """A linter of the virtual environment."""
    found = Path(sys.executable).with_name(name)
    if found.exists():
        return str(found)
    missing(f"{name} is not in the virtual environment; make .venv/deploy")


def run(*command: str | Path, **more: Any) -> str:
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **more)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    told: str = ended.stdout + ended.stderr
    return told


def rendered(values: dict[str, str]) -> str:
    """The chart's documents."""
    options = [option for name, value in (NEEDED | values).items() for option in ("--set", f"{name}={value}")]
    return run(tool("helm"), "template", "test", CHART, "--kube-version", KUBERNETES, *options)


def documents(text: str) -> dict[str, Any]:
    """The documents by their kinds."""
    import yaml

    return {each["kind"]: each for each in yaml.safe_load_all(text) if each}


def test_dockerfile() -> None:
    """hadolint finds nothing to say."""
    assert run(program("hadolint"), DEPLOY / "Dockerfile") == ""


def test_dockerfile_copies_what_is_there() -> None:
    """What it copies is in the repository, and is not ignored."""
    text, ignored = (DEPLOY / "Dockerfile").read_text(), (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    sources = [
        source for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for source in line.split()[:-1]
    ]
    assert len(sources) >= 6
    for source in sources:
        assert (DEPLOY.parent / source).exists(), source
        assert f"!{source}" in ignored, source


def test_version() -> None:
    """The image and the chart say the version that this is."""
    label = re.search(r'image\.version="(.+?)"', (DEPLOY / "Dockerfile").read_text())
    assert label is not None
    chart = re.search(r'^appVersion: "(.+)"$', (CHART / "Chart.yaml").read_text(), re.MULTILINE)
    assert chart is not None
    assert (label[1], chart[1]) == (__version__, __version__)


@pytest.mark.parametrize("release", RELEASES)
def test_chart(release: str, tmp_path: Path) -> None:
    """helm lint is content, and every document is one of Kubernetes, without a field that it does not know."""
    options = [o for name, value in (NEEDED | RELEASES[release]).items() for o in ("--set", f"{name}={value}")]
    run(tool("helm"), "lint", "--strict", CHART, "--kube-version", KUBERNETES, *options)
    file = tmp_path / "documents.yaml"
    file.write_text(rendered(RELEASES[release]))
    told = run(program("kubernetes-validate"), "-k", KUBERNETES.rpartition(".")[0], "--strict", file)
    assert told.count(" passed for resource ") == file.read_text().count("\nkind: ")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"settings.storage": "filesystem"}, "/settings/storage"),
        ({"settings.metadata": "postgresql://user:secret@db/x"}, "/settings/metadata"),
        ({"settings.port": "1"}, "/settings"),
        ({"replica": "2"}, "replica"),
    ],
)
def test_chart_refuses(values: dict[str, str], told: str) -> None:
    """Values that cannot be, or would put a password into a ConfigMap, stop the installation."""
    options = [option for name, value in (NEEDED | values).items() for option in ("--set", f"{name}={value}")]
    ended = subprocess.run(
        [tool("helm"), "template", "test", CHART, "--kube-version", KUBERNETES, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    assert told in ended.stderr


@pytest.mark.parametrize("release", RELEASES)
def test_chart_fits(release: str) -> None:
    """Its settings are ours, its probes ask what is served, its patience is longer than ours, its nodes harmless."""
    pytest.importorskip("yaml")
    found = documents(rendered(RELEASES[release]))
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    settings = load(environment=found["ConfigMap"]["data"] | environment)
    assert settings.port == container["ports"][0]["containerPort"]
    assert pod["terminationGracePeriodSeconds"] > settings.drain_timeout + 8
    served = (DEPLOY.parent / "docs" / "api.md").read_text()
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert f"`{container[probe]['httpGet']['path']}`" in served, probe
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert "sesame" not in str(found["ConfigMap"])


def test_compose() -> None:
    """docker-compose takes the file, and the settings in it are ours."""
    yaml = pytest.importorskip("yaml")
    compose = shutil.which("docker-compose") or missing("docker-compose is not on this machine")
    secrets = {"POSTGRES_PASSWORD": "p", "S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "s"}
    file = DEPLOY / "compose" / "docker-compose.yml"
    path = {"PATH": "/usr/bin:/bin"}
    services = yaml.safe_load(run(compose, "--file", file, "config", env=path | secrets))["services"]
    variables = {name: str(value) for name, value in services["node"]["environment"].items()}
    assert load(environment=variables).bucket
    ended = subprocess.run([compose, "--file", file, "config"], env=path, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "see .env.example" in ended.stderr
    assert set(re.findall(r"^(\w+)=", (file.parent / ".env.example").read_text(), re.MULTILINE)) == set(secrets)


def test_proxy(tmp_path: Path) -> None:
    """nginx takes its configuration."""
    (tmp_path / "logs").mkdir()
    run(tool("nginx"), "-t", "-p", tmp_path, "-g", f"pid {tmp_path}/pid;", "-c", DEPLOY / "compose" / "nginx.conf")


def test_unit(tmp_path: Path) -> None:
    """systemd takes the unit, and finds little in it that an attacker could use."""
    analyze = shutil.which("systemd-analyze") or missing("systemd-analyze is not on this machine")
    unit = tmp_path / "moorage.service"
    unit.write_text(
        (DEPLOY / "systemd" / "moorage.service").read_text().replace("/opt/moorage/bin/moorage", "/bin/true")
    )
    assert run(analyze, "verify", "--man=no", unit) == ""
    told = run(analyze, "security", "--offline=true", "--threshold=20", unit)  # 100 is the worst
    assert "SAFE" not in told or "UNSAFE" not in told
