"""Which addresses ``auto`` gives to clients: those of the clouds, which everyone reaches."""

from pathlib import Path

import pytest

from moorage.storage.base import new_key
from moorage.storage.buckets import BucketOptions
from moorage.storage.objects import ObjectBlobStore, ObjectOptions

AWS = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = c2VjcmV0\n"
AZURE = "AccountName=account;AccountKey=c2VjcmV0"


async def address(tmp_path: Path, credentials: str, **bucket: object) -> str | None:
    """What a client is told of an object; nothing is reached, since signing needs nobody."""
    file = tmp_path / "credentials"
    file.write_text(credentials)
    options = BucketOptions(credentials=str(file), retries=0, connect_timeout=1.0, **bucket)  # type: ignore[arg-type]
    async with ObjectBlobStore(options, ObjectOptions()) as store:
        return await store.url(new_key(), 60.0)


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may leave this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("credentials", "bucket", "start"),
    [
        (AWS, {"url": "s3://bucket/a", "region": "eu-central-1"}, "https://s3.eu-central-1.amazonaws.com/bucket/a/"),
        (AWS, {"url": "s3://bucket", "virtual_host": True}, "https://bucket.s3.us-east-1.amazonaws.com/"),
        (AZURE, {"url": "az://container/a"}, "https://account.blob.core.windows.net/container/a/"),
    ],
)
async def test_a_cloud(tmp_path: Path, credentials: str, bucket: dict[str, object], start: str) -> None:
    found = await address(tmp_path, credentials, **bucket)
    assert found
    assert found.startswith(start)
    assert "c2VjcmV0" not in found


async def test_an_endpoint_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is set here or by the cloud's own variable: it may be a name that only servers know."""
    assert await address(tmp_path, AWS, url="s3://bucket", endpoint="https://s3.example") is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.amazonaws.com.example")
    assert await address(tmp_path, AWS, url="s3://bucket") is None


@pytest.mark.parametrize("wrong", ["", "[default]\naws_access_key_id = only\n", "secret words\n", "[other]\na = b\n"])
async def test_a_file_that_is_none(tmp_path: Path, wrong: str) -> None:
    """What a file of credentials lacks is said, and nothing of what it holds."""
    with pytest.raises(
        RuntimeError, match=r"no aws_access_key_id and aws_secret_access_key in \[default\]"
    ) as raised:
        await address(tmp_path, wrong, url="s3://bucket")
    assert "secret words" not in str(raised.value)
    with pytest.raises(RuntimeError, match="no AccountKey and no SharedAccessSignature"):
        await address(tmp_path, wrong, url="az://container")
