"""Parts of access control that other packages bring: entry points, chosen by the settings."""

from pathlib import Path

import pytest

from moorage import Settings, SettingsError, create_app
from tests.login import basic
from tests.support import served

PACKAGE = """
from moorage.auth.base import Challenge, Decision, Identity

class Staff:
    challenges = (Challenge("Basic", (("realm", "staff"),)),)

    async def authenticate(self, credentials):
        return Identity(credentials.name, method="staff") if credentials.password == "staff" else None

class Homes:
    def __init__(self, settings, registry):
        self.registry = registry

    async def authorize(self, identity, action, repository, tag=None):
        await self.registry.repositories.list()
        return Decision(bool(repository) and repository.startswith(f"{identity.name}/"), "")

def make_staff(settings, registry):
    assert settings.authentication == ["staff"]
    return Staff()
"""
ENTRIES = """
[moorage.authenticators]
staff = a_package_of_staff:make_staff
broken = a_package_of_staff:not_there
absent = a_package_that_is_not_there:make

[moorage.authorizers]
homes = a_package_of_staff:Homes
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed, as far as Python can see."""
    (tmp_path / "a_package_of_staff.py").write_text(PACKAGE)
    folder = tmp_path / "a_package_of_staff-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package-of-staff\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("package")
async def test_parts_of_another_package() -> None:
    """The settings name them, they are made of the settings and the registry, and they decide."""
    app = create_app(settings=Settings(storage="memory", authentication=["staff"], authorization="homes"))
    async with served(app) as client:
        for headers, repository, status in (
            (basic("ann", "staff"), "ann/app", 202),
            (basic("ann", "staff"), "ben/app", 403),
            (basic("ann", "guess"), "ann/app", 401),
            ({}, "ann/app", 401),
        ):
            response = await client.post(f"/v2/{repository}/blobs/uploads/", headers=headers)
            assert response.status_code == status
            assert response.headers.get("www-authenticate") == (None if status != 401 else 'Basic realm="staff"')
    await app.aclose()


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("broken", "not_there cannot be loaded"),
        ("absent", "a_package_that_is_not_there:make cannot be loaded"),
        ("homes", "allowed: absent, broken, certificate, htpasswd, .*staff"),
    ],
)
def test_what_cannot_be_loaded(name: str, told: str) -> None:
    """A part that is not there, or cannot be loaded, stops the start by its name."""
    with pytest.raises(SettingsError, match=f"authentication = '{name}': .*{told}"):
        create_app(settings=Settings(storage="memory", authentication=[name]))
