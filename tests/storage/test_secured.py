"""The way to the bucket: a private authority, encryption on the server's side, no plain HTTP by mistake."""

import ipaddress
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from moorage.build import store_of
from moorage.config import load
from moorage.spec.errors import StorageUnavailable
from moorage.storage.base import new_key
from tests.buckets import Engine
from tests.certificates import Authority
from tests.proxy import Proxy
from tests.server import free_port
from tests.storage.conftest import QUICK

pytestmark = pytest.mark.stores


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority")).make()


@pytest.fixture(scope="module")
def endpoint(moto: Engine, authority: Authority) -> Iterator[str]:
    """moto behind TLS, with a certificate of that authority."""
    pair = authority.issue("bucket", names=(x509.IPAddress(ipaddress.ip_address("127.0.0.1")),))
    port = free_port()
    program = str(Path(sys.executable).with_name("moto_server"))
    command = [program, "-H", "127.0.0.1", "-p", str(port), "-s", "-c", str(pair.certificate), "-k", str(pair.key)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"https://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.put(f"{url}/moorage", verify=False, trust_env=False)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "moto does not answer"
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


async def test_a_private_authority(moto: Engine, endpoint: str, authority: Authority) -> None:
    """Its certificate is taken where it is named, and only there."""
    there = moto.place(object_endpoint=endpoint, object_allow_http=False, **QUICK)
    async with store_of(load(arguments={**there, "object_ca_file": str(authority.certificate)})) as store:
        key = new_key()
        async with store.write(key) as writer:
            await writer.write([b"over TLS"])
        assert [bytes(piece) async for piece in store.read(key)] == [b"over TLS"]
        await store.delete([key])
    async with store_of(load(arguments=there)) as store:
        with pytest.raises(StorageUnavailable):
            await store.size(key)


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, set()),
        ({"object_encryption": "AES256"}, {b"x-amz-server-side-encryption: aes256"}),
        (
            {"object_encryption": "aws:kms", "object_encryption_key": "arn:aws:kms:us-east-1:1:key/a"},
            {
                b"x-amz-server-side-encryption: aws:kms",
                b"x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:us-east-1:1:key/a",
            },
        ),
    ],
)
async def test_encryption(moto: Engine, settings: dict[str, str], headers: set[bytes]) -> None:
    """Every object is written with what was set, be it one PUT or several parts."""
    with Proxy(moto.endpoint).serving() as proxy:
        async with store_of(load(arguments=moto.place(object_endpoint=proxy.url, **settings))) as store:
            for size in (1, 9 * 1024 * 1024):
                key = new_key()
                async with store.write(key) as writer:
                    await writer.write([bytes(size)])
                await store.delete([key])
        writes = [each for each in proxy.requests if each.verb in ("put", "begin")]
        assert [each.verb for each in writes] == ["put", "begin"]
        for each in writes:
            sent = {line for line in each.head.lower().split(b"\r\n") if b"encryption" in line.partition(b":")[0]}
            assert sent == headers
