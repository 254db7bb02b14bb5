"""What every place for bytes and every place for facts must do, as tests to inherit from.

A backend's own tests name a class and give a fixture::

    class TestMyStore(BlobStoreContract):
        @pytest.fixture
        def store(self, tmp_path): return MyStore(tmp_path)

Fixtures give what is *not opened*: each test opens and closes it in an event loop of its own, so no pytest plugin for
asyncio is needed. No test asks which backend it runs on.
"""

from moorage.testing.contract.facts import MetadataContract
from moorage.testing.contract.shared import SharedBlobStoreContract, SharedMetadataContract
from moorage.testing.contract.stores import BlobStoreContract

__all__ = ["BlobStoreContract", "MetadataContract", "SharedBlobStoreContract", "SharedMetadataContract"]
