"""What the commands have in common: the options that say where a registry is, and how an error ends a command."""

import asyncio
import inspect
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from moorage.settings import Settings

Config = Annotated[Path | None, typer.Option("--config", "-c", metavar="FILE", help="Settings in TOML.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        "-s",
        metavar="NAME|URL",
        help="Where bytes are kept: filesystem, memory, file:///path, s3://…, gs://…, az://…; default filesystem.",
    ),
]
Root = Annotated[
    str | None,
    typer.Option(
        "--root",
        metavar="FOLDER",
        help="Folder of the filesystem storage; default /var/lib/oci-registry if writable, else the user's.",
    ),
]
Metadata = Annotated[
    str | None,
    typer.Option(
        "--metadata",
        "-m",
        metavar="NAME|URL",
        help="Where facts are kept: sqlite (in the root), postgresql://user@host/database; default sqlite.",
    ),
]
Jobs = Annotated[int, typer.Option(min=1, max=256, metavar="N", help="Objects that are copied at once.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, metavar="N", help="The most to list.")]

_PLACE: Final = {"storage": Storage, "root": Root, "metadata": Metadata, "config": Config}


def on_registry(command: Callable[..., Any]) -> Callable[..., None]:
    """A command line for ``command``, whose first parameter are the settings of the registry that the options name.

    What it gives back, awaited if need be, is the exit code (None is 0). The heavy modules are imported when it runs:
    `moorage --version` needs none of them.
    """
    _, *own = inspect.signature(command).parameters.values()
    place = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in _PLACE.items()
    ]

    @wraps(command)
    def line(config: Path | None, **values: Any) -> None:
        arguments = {name: values.pop(name) for name in _PLACE if name != "config"}
        source = str(values.get("source") or "")  # what a command calls so may be in a bucket
        guarded(lambda: command(load_settings(config, arguments, source), **values))

    # Typer reads both.
    line.__signature__ = inspect.Signature([*own, *place])  # type: ignore[attr-defined]
    line.__annotations__ = {each.name: each.annotation for each in own} | _PLACE
    return line


def load_settings(config: Path | None, arguments: dict[str, Any], source: str = "") -> "Settings":
    """The settings of a file, the environment and the command line; ``source`` as in ``load``.

    Raises ``SettingsError``.
    """
    from moorage.config import load  # noqa: PLC0415
    from moorage.settings import SettingsError, without_password  # noqa: PLC0415

    url = arguments.get("metadata")
    if url is not None and without_password(url) != url:
        raise SettingsError(
            "--metadata: everyone on this machine can read a password there; "
            "allowed: in metadata_password_file, MOORAGE_METADATA, PGPASSWORD or PGPASSFILE"
        )
    return load(config, os.environ, arguments, source)


def guarded(run: Callable[[], Any]) -> None:
    """End the command with what ``run`` gives back; with a line that says what is wrong, and 2, where it cannot."""
    from moorage.settings import SettingsError  # noqa: PLC0415
    from moorage.spec.errors import RegistryError  # noqa: PLC0415

    try:
        code = run()
        if inspect.isawaitable(code):
            code = asyncio.run(_awaited(code))
    except RegistryError as error:
        details = [
            f"{key}={value}" for each in error.details if isinstance(each, dict) for key, value in each.items()
        ]
        _fail(error.text + (f": {', '.join(details)}" if details else ""))
    except (SettingsError, ValueError, OSError, RuntimeError) as error:
        _fail(str(error))
    raise typer.Exit(code or 0)


async def _awaited(work: Any) -> Any:
    return await work


def _fail(message: str) -> None:
    print(f"moorage: {message}", file=sys.stderr)  # noqa: T201
    raise typer.Exit(2)
