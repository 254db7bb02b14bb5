"""``moorage release`` beside a server that serves the same root."""

import json
from pathlib import Path

import httpx

from tests.server import running
from tests.test_cli import refused, run
from tests.web.test_releases import SERVICES, both, named

TOML = """
name = "august"

[[changes]]
repository = "shop/cart"
tag = "stable"
digest = "{0}"
expected = "{1}"

[[changes]]
repository = "shop/web"
tag = "stable"
digest = "absent"
"""


async def test_from_file_to_rollback(tmp_path: Path) -> None:
    """The server serves what the command released at once, and what it took back; each change is told."""
    root, file = tmp_path / "root", tmp_path / "release.toml"
    with running(root) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            old, new = await both(client)
            file.write_text(TOML.format(new[0], old[0]))
            done = run("release", "apply", file, "--root", root)
            first, *changes = done.stdout.splitlines()
            assert (done.returncode, done.stderr) == (0, "")
            assert first.startswith("august  released  2")
            assert first.endswith("Z  by operator")
            assert changes == [
                f"  shop/cart:stable  {old[0]} -> {new[0]}, expected {old[0]}",
                f"  shop/web:stable  {old[2]} -> absent",
            ]
            assert await named(client) == [new[0], old[1], None]
            assert run("release", "apply", file, "--root", root).stdout == done.stdout
            assert run("release", "show", "august", "--root", root).stdout == done.stdout
            assert "(release august)" in run("history", "shop/cart:stable", "--root", root).stdout
            back = run("release", "rollback", "august", "--root", root)
            assert back.stdout.startswith("august  rolled back  ")
            assert await named(client) == old
            listed = run("release", "list", "--root", root).stdout.splitlines()
            assert listed == back.stdout.splitlines()[:1]
    assert run("check", "--root", root).returncode == 0


async def test_refusals(tmp_path: Path) -> None:
    """1 and a line for each change that is in the way; 2 where what was given is wrong. Both change nothing."""
    root, file = tmp_path / "root", tmp_path / "release.json"
    with running(root) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            old, new = await both(client)
            moves = [
                {"repository": name, "tag": "stable", "digest": each}
                for name, each in zip(SERVICES, new, strict=True)
            ]
            for each in moves[1:]:
                each["expected"] = "absent"
            file.write_text(json.dumps({"name": "r", "changes": moves}))
            done = run("release", "apply", file, "--root", root)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.splitlines() == [
                "moorage: tags do not name what is expected",
                f"  name=shop/pay, tag=stable, expected=absent, current={old[1]}",
                f"  name=shop/web, tag=stable, expected=absent, current={old[2]}",
            ]
            for verb in ("show", "publish", "discard", "rollback"):
                done = run("release", verb, "r", "--root", root)
                assert (done.returncode, done.stderr) == (1, "moorage: there is no such release\n  release=r\n")
            file.write_text("name = 'r'\nchanges = 1")
            assert "path=$.changes" in refused("release", "apply", file, "--root", root)
            assert "No such file" in refused("release", "apply", tmp_path / "none", "--root", root)
            assert await named(client) == old


async def test_drafts(tmp_path: Path) -> None:
    """A draft holds what `why` names, until it is published or discarded; --force rolls back what was moved since."""
    root, file = tmp_path / "root", tmp_path / "release.json"
    with running(root) as server:
        async with httpx.AsyncClient(base_url=server.url) as client:
            old, new = await both(client)
            change = {"repository": "shop/cart", "tag": "stable", "digest": new[0]}
            file.write_text(json.dumps({"name": "r", "changes": [change]}))
            assert run("release", "apply", "--draft", file, "--root", root).stdout.startswith("r  draft  ")
            assert await named(client) == old
            assert "  held by the draft release r\n" in run("why", f"shop/cart@{new[0]}", "--root", root).stdout
            assert run("release", "discard", "r", "--root", root).stdout == "r is discarded\n"
            assert "held by itself" in run("why", f"shop/cart@{new[0]}", "--root", root).stdout
            run("release", "apply", "--draft", file, "--root", root)
            assert run("release", "publish", "r", "--root", root).returncode == 0
            assert await named(client) == [new[0], *old[1:]]
            assert (await client.delete("/v2/shop/cart/manifests/stable")).status_code == 202
            done = run("release", "rollback", "r", "--root", root)
            assert done.returncode == 1
            assert f"name=shop/cart, tag=stable, released={new[0]}, current=absent" in done.stderr
            assert run("release", "rollback", "--force", "r", "--root", root).returncode == 0
            assert await named(client) == old
