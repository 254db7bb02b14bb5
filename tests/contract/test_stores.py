"""The contract of places for bytes, on each of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moorage.storage.base import BlobStore
from moorage.storage.filesystem import FilesystemBlobStore
from moorage.storage.memory import MemoryBlobStore
from moorage.testing.contract import BlobStoreContract, SharedBlobStoreContract


class TestMemory(BlobStoreContract):
    @pytest.fixture
    def store(self) -> BlobStore:
        return MemoryBlobStore()


class TestFilesystem(BlobStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[BlobStore]:
        yield FilesystemBlobStore(tmp_path / "made" / "blobs")
        assert list(tmp_path.glob("made/blobs/*/*")) == []  # also what the store would not list


class TestSharedFilesystem(SharedBlobStoreContract):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> Callable[[], BlobStore]:
        return lambda: FilesystemBlobStore(tmp_path / "blobs")
