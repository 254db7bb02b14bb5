"""Every failure that a client can see: its code, its status and its message.

Spec: "Error Codes". A class is three words of data; what went wrong where goes into ``detail``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class RegistryError(Exception):
    """A failure in the specification's form.

    ``detail`` says what was wrong and where; several ``details`` make several entries of the same code in one
    answer. ``headers`` go with the answer (``Allow``, ``Retry-After``, ``Range``…).
    """

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500
    message: ClassVar[str] = "unknown error"

    def __init__(
        self,
        message: str | None = None,
        *,
        detail: Any = None,
        details: Sequence[Any] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.text = message or self.message
        self.details = tuple(details) or (detail,)
        self.headers = dict(headers or {})
        super().__init__(self.text, *(each for each in self.details if each is not None))

    def entries(self) -> list[dict[str, Any]]:
        """The ``errors`` array of the answer."""
        return [
            {"code": self.code, "message": self.text} | ({} if each is None else {"detail": each})
            for each in self.details
        ]


class BlobUnknown(RegistryError):
    code, status, message = "BLOB_UNKNOWN", 404, "blob unknown to registry"


class BlobUploadInvalid(RegistryError):
    code, status, message = "BLOB_UPLOAD_INVALID", 400, "blob upload invalid"


class BlobUploadRangeInvalid(BlobUploadInvalid):
    """A chunk out of order; spec "Pushing a blob in chunks"."""

    status, message = 416, "the chunk does not start where the upload session ends"


class BlobUploadUnknown(RegistryError):
    code, status, message = "BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry"


class BlobTooLarge(RegistryError):
    code, status, message = "SIZE_INVALID", 413, "the blob is larger than this registry accepts"


class DigestInvalid(RegistryError):
    code, status, message = "DIGEST_INVALID", 400, "provided digest did not match uploaded content"


class ManifestBlobUnknown(RegistryError):
    code, status, message = (
        "MANIFEST_BLOB_UNKNOWN",
        404,
        "manifest references a manifest or blob unknown to registry",
    )


class ManifestInvalid(RegistryError):
    code, status, message = "MANIFEST_INVALID", 400, "manifest invalid"


class ManifestTooLarge(ManifestInvalid):
    status, message = 413, "the manifest is larger than this registry accepts"


class ManifestUnknown(RegistryError):
    code, status, message = "MANIFEST_UNKNOWN", 404, "manifest unknown to registry"


class TagInvalid(ManifestInvalid):
    message = "the tag is not of the specification's form"


class TooManyTags(ManifestInvalid):
    status, message = 414, "too many tags in one request"


class NameInvalid(RegistryError):
    code, status, message = "NAME_INVALID", 400, "invalid repository name"


class NameUnknown(RegistryError):
    code, status, message = "NAME_UNKNOWN", 404, "repository name not known to registry"


class ReleaseUnknown(NameUnknown):
    message = "there is no such release"


class SizeInvalid(RegistryError):
    code, status, message = "SIZE_INVALID", 400, "provided length did not match content length"


class RangeInvalid(RegistryError):
    code, status, message = "SIZE_INVALID", 416, "the requested range is not in the content"


class Unauthorized(RegistryError):
    """Each of ``challenges`` goes as a ``WWW-Authenticate`` of its own: clients read one of them a line.

    ``problem`` is what was wrong with a token, in the word that clients know.
    """

    code, status, message = "UNAUTHORIZED", 401, "authentication required"
    problem: ClassVar[str] = ""
    challenges: Sequence[str] = ()


class TokenInvalid(Unauthorized):
    """A token that is not, not yet or no longer valid; RFC 6750 section 3.1."""

    message, problem = "the token is not valid", "invalid_token"


class ScopeInsufficient(Unauthorized):
    """The token lets its bearer do less than he may: he can fetch another; RFC 6750 section 3.1."""

    message, problem = "the token was not given for this; ask for another with this scope", "insufficient_scope"


class Denied(RegistryError):
    code, status, message = "DENIED", 403, "requested access to the resource is denied"


class QuotaExceeded(Denied):
    message = "a quota does not allow this"


class InUse(Denied):
    """Deleting what a stored manifest references would leave that manifest broken."""

    status, message = 405, "the content is referenced by a manifest of this repository"


class PreconditionFailed(Denied):
    """``If-Match`` or ``If-None-Match`` does not hold; RFC 9110 section 13."""

    status, message = 412, "the precondition does not hold"


class ReleaseConflict(Denied):
    """A release of that name is there, of other content or no longer where this could be done."""

    status, message = 409, "the release cannot become that"


class Unsupported(RegistryError):
    code, status, message = "UNSUPPORTED", 400, "the operation is unsupported"


class TokenRequestInvalid(Unsupported):
    """``problem`` is the word of RFC 6749 section 5.2 for what is wrong."""

    message = "this is no request for a token"

    def __init__(self, message: str, *, problem: str = "invalid_request") -> None:
        super().__init__(message)
        self.problem = problem


class AccessInvalid(Unsupported):
    message = "this is no key or rule"


class RequestMalformed(Unsupported):
    message = "this is not a request of HTTP/1.1"


class HeadTooLarge(RequestMalformed):
    status, message = 431, "the request's line and headers are larger than this server accepts"


class HeadTimeout(RequestMalformed):
    status, message = 408, "the request's line and headers took too long"


class RequestTimeout(RequestMalformed):
    status, message = 408, "nothing came of the request's body for too long; what came before is kept"


class ReleaseInvalid(Unsupported):
    message = "this is no release"


class PageInvalid(Unsupported):
    message = "a page has a whole number of entries"


class MomentInvalid(Unsupported):
    message = "a moment is a date and time of ISO 8601"


class EndpointUnknown(Unsupported):
    status, message = 404, "no endpoint of the specification has this path"


class MethodNotAllowed(Unsupported):
    status, message = 405, "the method is not allowed here"


class TooManyRequests(RegistryError):
    code, status, message = "TOOMANYREQUESTS", 429, "too many requests"


class StorageFull(RegistryError):
    status, message = 507, "the registry's storage is full; nothing of this request was kept"


class ServiceUnavailable(RegistryError):
    status, message = 503, "the registry is stopping; try again"


class DatabaseUnavailable(ServiceUnavailable):
    """The database cannot be reached, or has no connection to spare; nothing was changed."""

    message = "the registry's database does not answer; try again"

    def __init__(self, message: str | None = None, *, detail: Any = None) -> None:
        super().__init__(message, detail=detail, headers={"Retry-After": "1"})


class OutcomeUnknown(DatabaseUnavailable):
    """The database was lost while it committed: what was asked may be done or not."""

    message = "the registry's database was lost while it committed; look whether it is done, or try again"


class TooManyConnections(RegistryError):
    status, message = 503, "the registry has as many connections as it can hold; try again"


class StorageUnavailable(ServiceUnavailable):
    """The place for bytes does not answer, or does not let the registry in (then it is not ``passing``)."""

    message = "the registry's storage does not answer; try again"
    passing = True


class IssuerUnavailable(RegistryError):
    """Who signed a token cannot be asked for his keys; nothing is said of the token."""

    status, message = 503, "the keys of the token's issuer cannot be had; try again"


class ClientDisconnected(Exception):
    """The client went away before its body ended; nobody is left to answer."""
