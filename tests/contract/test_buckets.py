"""The contract of places for bytes, on buckets of every kind."""

from collections.abc import Callable

import pytest

from moorage.build import store_of
from moorage.config import load
from moorage.storage.base import BlobStore
from moorage.testing.contract import BlobStoreContract, SharedBlobStoreContract
from tests.buckets import Engine

pytestmark = pytest.mark.stores


class TestSeaweedFS(BlobStoreContract):
    @pytest.fixture
    def store(self, seaweedfs: Engine) -> BlobStore:
        return seaweedfs.store(redirect="always")


class TestMoto(BlobStoreContract):
    @pytest.fixture
    def store(self, moto: Engine) -> BlobStore:
        return moto.store(redirect="always")


class TestAzurite(BlobStoreContract):
    @pytest.fixture
    def store(self, azurite: Engine) -> BlobStore:
        return azurite.store(redirect="always")


class TestGoogle(BlobStoreContract):
    @pytest.fixture
    def store(self, google: Engine) -> BlobStore:
        return google.store(redirect="never")  # Google signs for its own host alone


class TestShared(SharedBlobStoreContract):
    @pytest.fixture(params=["seaweedfs", "moto", "azurite", "google"])
    def make_store(self, request: pytest.FixtureRequest) -> Callable[[], BlobStore]:
        engine: Engine = request.getfixturevalue(request.param)
        settings = load(arguments=engine.place())
        return lambda: store_of(settings)
