"""Descriptors; image-spec "OCI Content Descriptors"."""

import re
from typing import Annotated, Final

import msgspec

SIZE_LARGEST: Final = 2**63 - 1
# RFC 6838 section 4.2; parameters are let through, since real artifacts carry them.
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
MEDIA_TYPE: Final = re.compile(rf"{_NAME}/{_NAME}(?:[ \t]*;[\x20-\x7e]*)?")

Size = Annotated[int, msgspec.Meta(ge=0, le=SIZE_LARGEST)]


class Platform(msgspec.Struct, frozen=True):
    """What an index says of where a manifest runs."""

    architecture: str
    os: str
    os_version: str | None = msgspec.field(name="os.version", default=None)
    os_features: list[str] | None = msgspec.field(name="os.features", default=None)
    variant: str | None = None
    features: list[str] | None = None


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A reference to content by its type, digest and size in bytes."""

    media_type: str
    digest: str
    size: Size
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    data: str | None = None
    artifact_type: str | None = None
    platform: Platform | None = None
