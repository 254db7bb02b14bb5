"""crane pulls what a release lets tags name, before it, after it, after its rollback, and as of each of these."""

import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.clients.kit import Home, Layout, assert_same

pytestmark = pytest.mark.clients


def test_crane(
    run: Home, image: Layout, multi: Layout, host: str, repository: str, reference: str, tmp_path: Path
) -> None:
    """Services pushed by digest alone are found under their tags when they are released, all of them or none."""
    services = [f"{repository}/{name}" for name in ("cart", "pay")]
    for name in services:
        run("crane", "push", image.root, f"{host}/{name}:stable")
        run("crane", "push", multi.root, f"{host}/{name}@{multi.digest}")
    moments: list[str] = []

    def pulled(expected: Layout, at: str = "") -> None:
        for name in services:
            folder = tmp_path / f"{at}{len(list(tmp_path.iterdir()))}".strip("/")
            run("crane", "pull", "--format", "oci", f"{host}/{at}{name}:stable", folder)
            assert_same(Layout(folder, "stable"), expected)
            assert run("crane", "ls", f"{host}/{at}{name}").lines == ["stable"]

    def remember() -> None:
        time.sleep(1.1)  # names tell whole seconds
        moments.append(datetime.now(UTC).strftime("at-%Y-%m-%dt%H%M%Sz/"))
        time.sleep(1.1)

    address = f"http://{host}/v2/_moorage/releases/{repository.replace('/', '.')}"
    moves = [
        {"repository": name, "tag": "stable", "digest": multi.digest, "expected": image.digest} for name in services
    ]
    pulled(image)
    wrong = [moves[0], moves[1] | {"expected": multi.digest}]
    assert httpx.put(address, json={"changes": wrong}).status_code == 412
    pulled(image)
    remember()
    assert httpx.put(address, json={"changes": moves, "draft": True}).status_code == 201
    pulled(image)
    assert httpx.post(f"{address}/publish").status_code == 200
    pulled(multi)
    remember()
    assert httpx.post(f"{address}/rollback").status_code == 200
    pulled(image)
    for moment, expected in zip(moments, (image, multi), strict=True):
        pulled(expected, moment)
