"""A pull by a client that is asked for its credentials: 401, a token where the registry wants one, manifest."""

import base64
import json
import re
from collections.abc import Sequence
from urllib.parse import quote

from benchmarks.client import LoadError, Wire, path_of
from benchmarks.loads import Load, check_bytes
from benchmarks.peers import PASSWORD, USER
from benchmarks.scale import Scale
from benchmarks.seeds import Seeds, numbered_manifest
from benchmarks.verbs import ACCEPT, digest_of

REPOSITORY = "bench/private"
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


class LoginPull(Load):
    name = "login-pull"
    what = "GET of a manifest: 401, token by user and password (or these themselves), 200"
    kinds = frozenset({"registry"})
    accounts = True
    seeded = True

    @classmethod
    def seed(cls, seeds: Seeds, scale: Scale) -> None:  # noqa: ARG003 one manifest at any scale
        seeds.manifests(REPOSITORY, [(["v1"], numbered_manifest(0))])

    async def prepare(self) -> None:
        self.content = numbered_manifest(0)
        self.path = f"/v2/{REPOSITORY}/manifests/v1"
        self.bare = self.target.server.request("GET", self.path, ACCEPT)

    async def check(self, wires: list[Wire]) -> None:
        request = await self._authorized(wires[0])
        await check_bytes(wires[0], request, digest_of(self.content), len(self.content))

    async def operate(self, wires: list[Wire]) -> None:
        await wires[0].ask(await self._authorized(wires[0]), 200, length=len(self.content))

    async def _authorized(self, wire: Wire) -> bytes:
        """The request as it is sent after the refusal of the one without credentials."""
        await wire.ask(self.bare, 401)
        challenge = wire.field("www-authenticate") or ""
        request = self.target.server.request
        if challenge[:6].lower() == "basic ":
            return request("GET", self.path, ACCEPT, f"Authorization: {BASIC}")
        asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        if "realm" not in asked:
            raise LoadError(f"a 401 without a realm: {challenge!r}")
        query = "&".join(f"{key}={quote(asked[key])}" for key in ("service", "scope") if key in asked)
        answer = await wire.ask(
            request("GET", f"{path_of(asked['realm'])}?{query}", f"Authorization: {BASIC}"), 200, keep=True
        )
        document = json.loads(answer.body)
        token = document.get("token") or document["access_token"]
        return request("GET", self.path, ACCEPT, f"Authorization: Bearer {token}")


LOADS: Sequence[type[Load]] = (LoginPull,)
