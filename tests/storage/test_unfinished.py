"""Multipart uploads that are broken off are aborted: parts that nobody lists would cost money for ever."""

import asyncio
import re

import httpx
import pytest

from moorage.build import store_of
from moorage.config import load
from moorage.spec.errors import BlobTooLarge, StorageUnavailable
from moorage.storage.base import BlobStore, new_key
from tests.buckets import ACCESS, Engine
from tests.google.bucket import BUCKET
from tests.proxy import Proxy, on, status
from tests.storage.conftest import QUICK

pytestmark = pytest.mark.stores

MIB = 1024 * 1024


def unfinished(moto: Engine) -> int:
    """How many multipart uploads are neither completed nor aborted."""
    signature = (
        f"AWS4-HMAC-SHA256 Credential={ACCESS}/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
    )
    url = f"{moto.endpoint}/{BUCKET}?uploads"
    answer = httpx.get(url, headers={"Authorization": signature}, trust_env=False)
    assert answer.status_code == 200
    return len(re.findall("<UploadId>", answer.text))


async def write(store: BlobStore, size: int = 30) -> None:
    async with store.write(new_key()) as writer:
        for _ in range(size):
            await writer.write([bytes(MIB)])


async def test_an_exception(moto: Engine) -> None:
    async def fail(store: BlobStore) -> None:
        async with store.write(new_key()) as writer:
            for _ in range(30):
                await writer.write([bytes(MIB)])
            raise ZeroDivisionError

    async with moto.store() as store:
        with pytest.raises(ZeroDivisionError):
            await fail(store)
        assert unfinished(moto) == 0


@pytest.mark.parametrize("delay", [0.005, 0.02, 0.05, 0.1, 0.2, 0.4])
async def test_a_cancellation(moto: Engine, delay: float) -> None:
    """Whenever it comes: as parts are sent, or as the upload is completed."""
    async with moto.store() as store:
        task = asyncio.create_task(write(store))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            assert [key async for key in store.list()] == []
        assert unfinished(moto) == 0


@pytest.mark.parametrize("verb", ["part", "complete"])
async def test_a_failure_of_the_bucket(moto: Engine, verb: str) -> None:
    """The upload is aborted also where it was the bucket that failed, if it takes that."""
    with Proxy(moto.endpoint).serving() as proxy:
        async with store_of(load(arguments=moto.place(object_endpoint=proxy.url, **QUICK))) as store:
            proxy.rule = on(verb, status(503, "SlowDown"))
            with pytest.raises(StorageUnavailable):
                await write(store)
        async with store:  # closing it waited for what was to be cleared away
            assert [key async for key in store.list()] == []
    assert unfinished(moto) == 0


async def test_a_blob_that_is_too_large(moto: Engine) -> None:
    """What could not be completed is refused as soon as it is known, naming the limit."""

    async def write_on(store: BlobStore) -> None:
        async with store.write(new_key()) as writer:
            writer._room = 12 * MIB  # type: ignore[attr-defined]  # as if it were at the end of 10,000 parts
            for _ in range(13):
                await writer.write([bytes(MIB)])

    async with moto.store(object_part_size=5 * MIB) as store:
        with pytest.raises(BlobTooLarge, match=str(5 * MIB * 10_000)):
            await write_on(store)
        assert unfinished(moto) == 0
