"""What there is is documented, and what the documentation names is there."""

import ast
import inspect
import itertools
import json
import re
import sqlite3
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

import moorage
import moorage.testing
from moorage import config, settings
from moorage.cli import app
from moorage.metadata.base import load_migrations
from moorage.spec.errors import RegistryError
from moorage.spec.routes import ENDPOINTS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *DOCS.glob("*.md")])
# Outside the specification, and so outside its table of endpoints.
SERVICES = {
    (method, path)
    for method in ("GET", "HEAD")
    for path in ("/healthz", "/readyz", "/openapi.json", "/v2/token/keys")
}
SERVICES |= {(method, path) for method in ("GET", "POST", "DELETE") for path in ("/api/keys", "/api/rules")}
SERVICES |= {("GET", "/api/quotas")}
SERVICES |= {("GET", "/v2/token"), ("POST", "/v2/token"), ("POST", "/v2/token/revoke")}


def text(name: str) -> str:
    """A page of ``docs``."""
    return (DOCS / name).read_text("utf-8")


def section(page: str, heading: str) -> str:
    """What stands below a heading, up to the next of its level or a higher one."""
    level = heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found[1]


def rows(part: str) -> list[list[str]]:
    """The cells of every table row but the heads."""
    lines = [line for line in part.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = {n for n, row in enumerate(cells) if all(re.fullmatch(":?-+:?", cell) for cell in row)}
    return [row for n, row in enumerate(cells) if n not in rules and n + 1 not in rules]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def quoted(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def command_line() -> Any:
    return typer.main.get_command(app)


def commands() -> dict[str, Any]:
    """Every command by its words, such as ``user add``."""
    found: dict[str, Any] = {}
    for name, each in command_line().commands.items():
        below = getattr(each, "commands", None)
        found |= {name: each} if below is None else {f"{name} {word}": command for word, command in below.items()}
    return found


def options_of(command: Any) -> set[str]:
    """Every spelling of every option of a command."""
    program = command_line().make_context("moorage", [], resilient_parsing=True)
    context = command.make_context(command.name, [], parent=program, resilient_parsing=True)
    return {spelling for each in command.get_params(context) for spelling in each.opts if spelling.startswith("-")}


def errors() -> Iterator[type[RegistryError]]:
    """Every class of error that there is, wherever it is defined."""
    for name in ("registry", "storage", "metadata", "web"):
        for file in (ROOT / "src" / "moorage" / name).glob("*.py"):
            import_module(f"moorage.{name}.{file.stem}".removesuffix(".__init__"))
    left = [RegistryError]
    while left:
        each = left.pop()
        if each.__module__.startswith("moorage."):
            yield each
        left += each.__subclasses__()


@pytest.mark.parametrize("name", settings.NAMES)
def test_setting(name: str) -> None:
    """A setting has a section that tells its variable, its default, what is allowed, and what it does."""
    part = section(text("configuration.md"), f"### `{name}`")
    facts = re.match(
        r"\n- variable `(?P<variable>\w+)`(?:, option (?P<options>.+))?\n- default: (?P<default>.+)\n"
        r"- allowed: (?P<allowed>[^\n]+)\n\n(?P<prose>\S.*)",
        part,
        re.DOTALL,
    )
    assert facts, part
    assert facts["variable"] == f"{config.PREFIX}{name.upper()}"
    default = getattr(settings.Settings(), name)
    if default is None:
        assert facts["default"] == "none"
    else:
        assert tomllib.loads(f"value = {facts['default'].strip('`')}")["value"] == (
            list(default) if isinstance(default, tuple) else default
        )
    assert facts["allowed"].replace("`", "") == settings.allowed(name)
    options = {o for each in command_line().commands["serve"].params if each.name == name for o in each.opts}
    assert set(quoted(facts["options"] or "")) == options


def test_no_other_setting() -> None:
    """Nothing is documented as a setting that is none."""
    documented = re.findall(r"^### `(.+)`$", text("configuration.md"), re.MULTILINE)
    assert sorted(documented) == sorted(settings.NAMES)


def test_example_file_loads(tmp_path: Path) -> None:
    """The example of a settings file is one, and those of the environment are."""
    (example,) = blocks(text("configuration.md"), "toml")
    file = tmp_path / "moorage.toml"
    file.write_text(example)
    example_settings = config.load(file)
    assert msgspec.structs.asdict(example_settings).keys() == set(settings.NAMES)
    assert example_settings != settings.Settings()
    variables = re.findall(r"^(MOORAGE_\w+)='?(.+?)'?$", text("configuration.md"), re.MULTILINE)
    assert len(variables) >= 2
    config.load(environment=dict(variables))


def test_commands_and_options() -> None:
    """Every command is documented with exactly the options that it has, and so is the program itself."""
    part = section(text("configuration.md"), "## Commands and options")
    documented = {quoted(row[0])[0]: set(quoted(row[2])) for row in rows(part)}
    assert documented == {f"moorage {name}": options_of(each) for name, each in commands().items()}
    assert options_of(command_line()) <= set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", part))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_examples(page: Path) -> None:
    """An example uses commands, options and make targets that there are."""
    known = commands()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for block in blocks(page.read_text("utf-8"), "sh"):
        for line in block.splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["make"]:
                assert words[1] in targets, line
            if words[:1] == ["moorage"] and not words[1].startswith("-"):
                name = words[1] if words[1] in known else " ".join(words[1:3])
                used = {word for word in words[2:] if re.fullmatch("--?[a-z][a-z-]*", word)}
                assert used <= options_of(known[name]), line


def test_endpoints() -> None:
    """The table of endpoints has every row that there is, under its end, and no other."""
    documented = {
        (method, quoted(path)[0]): {end.strip() for end in ends.split(",")}
        for ends, methods, path, *_ in rows(section(text("api.md"), "## Endpoints").partition("\n### ")[0])
        for method in quoted(methods)
    }
    assert set(documented) == {(each.method, each.path) for each in ENDPOINTS} | SERVICES
    for each in ENDPOINTS:
        expected = each.end if each.end.startswith("end-") else "extension"
        assert expected in documented[each.method, each.path], each


def test_errors() -> None:
    """The table of errors has every code with each of its statuses, and no other."""
    documented = [(quoted(row[0])[0], int(row[1])) for row in rows(section(text("api.md"), "## Errors"))]
    assert len(documented) == len(set(documented))
    assert set(documented) == {(each.code, each.status) for each in errors()}


def test_schema() -> None:
    """The schema's table has every table of the database, and no other."""
    documented = {quoted(row[0])[0] for row in rows(section(text("architecture.md"), "## The schema"))}
    with sqlite3.connect(":memory:") as database:
        for _, migration in load_migrations():
            database.executescript(migration)
        names = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    database.close()
    assert documented == {name for (name,) in names if not name.startswith("sqlite_")}


def test_actions() -> None:
    """Every action that is written to the events is documented, and no other."""
    sources = "".join(file.read_text("utf-8") for file in (ROOT / "src/moorage/metadata").glob("*.py"))
    written = set(re.findall(r'"((?:blob|manifest|tag|user|key|rule|release)\.[a-z]+)"', sources))
    documented = re.findall(
        r"`((?:blob|manifest|tag|user|key|rule|release)\.[a-z]+)`", section(text("architecture.md"), "## The schema")
    )
    assert set(documented) == written


def test_libraries() -> None:
    """Every library that is required has its reason."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    listed = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    required = {re.split(r"[\[<>=;\s]", each)[0] for each in listed}
    assert {row[0].split()[0] for row in rows(section(text("architecture.md"), "## Libraries"))} == required


def test_tree() -> None:
    """The picture of the packages names modules that there are, and every package."""
    (tree,) = blocks(section(text("architecture.md"), "## Floors"), "")
    source = ROOT / "src" / "moorage"
    modules = set(re.findall(r"\b([a-z_]+\.py)\b", tree)) | {"__init__.py"}
    present = {file.name for file in source.rglob("*.py")}
    assert modules <= present, modules - present
    packages = {file.parent.name for file in source.glob("*/__init__.py")}
    assert set(re.findall(r"^(?:  [\d ]  | {2,5})([a-z]+)/ ", tree, re.MULTILINE)) == packages


def anchors(page: Path) -> set[str]:
    """The places in a page that a link can lead to, by the rule of GitHub."""
    outside = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """A relative link leads to a file that is there, and to a heading of it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_relative_to(ROOT), target
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@cache
def functions(file: Path) -> frozenset[str]:
    """The test functions of a file that are not known to fail, with the class before the name where there is one."""
    names = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        for each in node.body if isinstance(node, ast.ClassDef) else [node]:
            if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if not any("xfail" in ast.unparse(mark) for mark in each.decorator_list):
                names.add(f"{node.name}::{each.name}" if isinstance(node, ast.ClassDef) else each.name)
    return frozenset(names)


def requirements() -> list[list[str]]:
    page = text("conformance.md")
    parts = ("## The specification, requirement by requirement", "## The image specification")
    return [row for part in parts for row in rows(section(page, part))]


def test_conformance_names_tests_that_exist() -> None:
    """Each requirement that is kept names a test, and every test that is named is there and passes."""
    found = requirements()
    assert len(found) > 150
    for _, _, requirement, kept, tests in found:
        named = quoted(tests)
        assert named or kept.startswith("not "), requirement
        for each in named:
            file, _, name = each.partition("::")
            assert name in functions(ROOT / "tests" / file), each


def test_conformance_names_modules_and_settings_that_exist() -> None:
    """Whatever the table names as the place where a requirement is kept is there."""
    for _, _, requirement, kept, _ in requirements():
        for each in quoted(kept):
            if each.endswith(".py"):
                assert (ROOT / "src" / "moorage" / each).is_file(), requirement
            elif re.fullmatch("[a-z]+_[a-z_]+", each):
                assert each in settings.NAMES or f"def {each}(" in sources(), (requirement, each)


@cache
def sources() -> str:
    return "\n".join(file.read_text("utf-8") for file in (ROOT / "src" / "moorage").rglob("*.py"))


@pytest.mark.parametrize("module", [moorage, moorage.testing], ids=["moorage", "moorage.testing"])
def test_public_names(module: Any) -> None:
    """A public name has a docstring of its own, and a page tells of it."""
    pages = "\n".join(page.read_text("utf-8") for page in PAGES)
    for name in module.__all__:
        assert re.search(rf"\b{name}\b", pages) or name == "__version__", f"{name} is on no page"
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value) or inspect.ismodule(value):
            assert value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__, name


async def test_verbs_have_docstrings() -> None:
    """Every verb of a registry says what comes out and what it raises."""
    async with moorage.open_registry() as registry:
        nouns = [value for name, value in vars(registry).items() if not name.startswith("_")]
        assert len(nouns) >= 6
        for noun in [registry, *nouns]:
            for name, verb in inspect.getmembers(type(noun), inspect.isfunction):
                assert verb.__doc__ or name.startswith("_"), f"{type(noun).__name__}.{name}"


def test_changelog() -> None:
    """The changes of this version have a section, which says something."""
    page = (ROOT / "CHANGELOG.md").read_text("utf-8")
    heading = re.search(rf"^## \[(?:Unreleased|{re.escape(moorage.__version__)})\].*$", page, re.MULTILINE)
    assert heading
    assert re.search(r"^- \S", section(page, heading[0]), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_json(page: Path) -> None:
    """What is shown as JSON is JSON."""
    for block in blocks(page.read_text("utf-8"), "json"):
        json.loads(block)
