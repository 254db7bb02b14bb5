"""The floors of docs/architecture.md: a package imports only packages on lower floors, never one beside it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import moorage

SOURCE = Path(moorage.__file__).parent
FLOORS = {"_version": 0, "spec": 0, "storage": 1, "metadata": 1, "auth": 1, "registry": 2, "web": 3}
TOP = 4  # config, build, server, cli and what else stands at the top
# Facts name the keys of bytes, so they may see how a key is written, and nothing else of storage.
BESIDE = {("metadata", "moorage.storage.base")}
BACKENDS = (
    *(f"moorage.storage.{each}" for each in ("filesystem", "memory", "objects")),
    "moorage.metadata.sqlite",
)
# Who says which backends there are.
NAMES_BACKENDS = {"build", "testing"}
# What a floor may take from elsewhere; the standard library is free where it is not listed below.
LIBRARIES = {
    "spec": {"msgspec", "blake3"},
    "storage": {"obstore"},
    "metadata": {"msgspec", "psycopg", "psycopg_pool"},
    "auth": {"argon2", "bcrypt", "cryptography", "jwt", "msgspec"},
    "registry": set(),
    "web": {"msgspec", "httptools"},
}
INPUT_OUTPUT = {"asyncio", "os", "pathlib", "shutil", "socket", "sqlite3", "subprocess", "tempfile", "threading"}
FORBIDDEN = {
    "spec": INPUT_OUTPUT,
    "registry": INPUT_OUTPUT - {"asyncio"},
    "web": INPUT_OUTPUT - {"asyncio"},
    "storage": {"sqlite3"},
}


def imports(tree: ast.Module) -> Iterator[str]:
    """The full names of all modules that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."
            # `from moorage.metadata import sqlite` imports a module, too.
            yield from (f"{node.module}.{each.name}" for each in node.names)


def beside(package: str, name: str) -> bool:
    """Whether ``package`` may import a module that stands beside it."""
    return any(package == who and name.startswith(what) for who, what in BESIDE)


def faults(package: str, text: str) -> list[str]:
    """What is wrong with the imports of a module of ``package``, a part of moorage."""
    found = []
    floor = FLOORS.get(package, TOP)
    tree = ast.parse(text)
    for name in dict.fromkeys(imports(tree)):
        root, _, rest = name.partition(".")
        part = rest.partition(".")[0]
        if root != "moorage":
            if root in FORBIDDEN.get(package, set()):
                found.append(f"{package} has no business with {root}")
            if package in LIBRARIES and root not in sys.stdlib_module_names | LIBRARIES[package]:
                found.append(f"{package} imports {root}")
        elif not part and floor < TOP:
            found.append(f"{package} imports moorage itself")
        elif part not in ("", package) and FLOORS.get(part, TOP) >= floor < TOP and not beside(package, name):
            found.append(f"{package} imports {name}, which is not below it")
        if name.startswith(BACKENDS) and package not in NAMES_BACKENDS and not name.startswith(f"moorage.{package}."):
            found.append(f"{package} names the backend {name}")
    if package == "spec" and any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree)):
        found.append("spec waits for something")
    if package in FORBIDDEN and any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
        for node in ast.walk(tree)
    ):
        found.append(f"{package} opens a file")
    return found


MODULES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_arrow_goes_up_or_sideways(module: Path) -> None:
    """Every import of every module leads down, and no floor touches what is not its own."""
    package = module.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert faults(package, module.read_text()) == []


def test_every_floor_is_there() -> None:
    """The floors are the packages that there are, so that no new one is left unwatched."""
    packages = {folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").exists()}
    assert packages == {*FLOORS, "testing"} - {"_version"}
    assert len(MODULES) > 40


@pytest.mark.parametrize("backend", [each.rpartition(".")[2] for each in BACKENDS])
def test_backends_do_not_know_each_other(backend: str) -> None:
    """A backend of storage knows the contract, and no other backend."""
    (module,) = [each for each in MODULES if each.stem == backend]
    named = set(imports(ast.parse(module.read_text())))
    assert not [name for name in named if name.startswith(BACKENDS)]


@pytest.mark.parametrize(
    ("package", "text"),
    [
        ("spec", "import moorage"),
        ("spec", "from moorage.web import v2"),
        ("spec", "from moorage import registry"),
        ("spec", "import asyncio"),
        ("spec", "async def f(): pass"),
        ("spec", "open('x')"),
        ("spec", "import httpx"),
        ("storage", "from moorage.metadata.base import Row"),
        ("storage", "from moorage.registry import Registry"),
        ("metadata", "from moorage.storage.memory import MemoryBlobStore"),
        ("metadata", "from moorage.storage import filesystem"),
        ("auth", "from moorage.registry import Registry"),
        ("auth", "from moorage.metadata.base import Metadata"),
        ("registry", "import sqlite3"),
        ("registry", "def f():\n    import sqlite3"),
        ("registry", "from moorage.metadata.sqlite import SQLiteMetadata"),
        ("registry", "from moorage.metadata import sqlite"),
        ("registry", "from moorage.web.asgi import Request"),
        ("registry", "from moorage.config import Settings"),
        ("web", "from moorage.storage.filesystem import FilesystemBlobStore"),
        ("web", "from moorage.build import create_app"),
        ("web", "from pathlib import Path"),
        ("web", "import starlette"),
        ("config", "from moorage.metadata.sqlite import SQLiteMetadata"),
        ("server", "import moorage.storage.memory"),
    ],
)
def test_a_wrong_arrow_is_seen(package: str, text: str) -> None:
    """Each way to break the rules is told."""
    assert faults(package, text)


@pytest.mark.parametrize(
    ("package", "text"),
    [
        ("metadata", "from moorage.storage.base import Key"),
        ("registry", "from moorage.metadata import blobs"),
        ("web", "from moorage.metadata.uploads import UploadSession"),
        ("build", "from moorage.metadata.sqlite import SQLiteMetadata"),
        ("server", "from moorage import build"),
        ("spec", "from moorage.spec import digest"),
    ],
)
def test_a_right_arrow_is_let_through(package: str, text: str) -> None:
    """What leads down is nobody's business."""
    assert faults(package, text) == []
