"""A bucket of S3, or of what speaks like it: whole objects that are never overwritten. Touches the network.

The one idea: an object is put on the condition that its key is free (`If-None-Match: *`), so that of two writers one is
told; what is large goes in pieces, and becomes an object when the last call says so, on the same condition. The library
(boto3, extra `s3`) finds region, endpoint and credentials as everywhere: the environment, a profile, the machine's
role; what is said here comes first. Every error is said by the bucket's name, in an error of headrace's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headrace.core.errors import StateError
from headrace.plugs import require

Bytes = bytes | memoryview

# S3 takes pieces of 5 MiB and more, 10,000 of an object: 16 MiB reach 156 GiB, and a broken piece costs little to send
# again. What fits into two pieces goes in one call.
PIECE_BYTES = 16 << 20
_CONNECT_S, _ANSWER_S, _ATTEMPTS = 2, 10, 3  # an endpoint that is not there is said within 10 s

_NO_BUCKET = frozenset({"NoSuchBucket"})
_REFUSED = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AllAccessDisabled",
     "AuthorizationHeaderMalformed", "TokenRefreshRequired", "401", "403"}
)  # fmt: skip
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_GONE = frozenset({"NoSuchKey", "404"})
# What the library raises before it asks anybody: nobody said who asks.
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
     "TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError", "NoAuthTokenError"}
)  # fmt: skip


class Found(NamedTuple):
    """An object of a listing."""

    key: str
    size_bytes: int


class Upload(NamedTuple):
    """A large object that was begun and not finished."""

    key: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Where a bucket is. region, endpoint, profile: "" leaves it to the environment."""

    bucket: str
    region: str = ""
    endpoint: str = ""
    profile: str = ""


class S3Bucket:
    """Whole objects in one bucket. One thread at a time. `close` gives back the connections."""

    def __init__(self, settings: S3Settings, *, wanted_by: str, piece_bytes: int = PIECE_BYTES) -> None:
        """wanted_by: kind and name of what asks, for the error where the extra is missing.

        Raises: MissingExtraError HR-0990; StateError HR-0564 where the profile is not there."""
        boto3 = require("boto3", wanted_by=wanted_by)
        config = require("botocore.config", wanted_by=wanted_by)
        errors = require("botocore.exceptions", wanted_by=wanted_by)
        self.settings = settings
        self._piece_bytes = piece_bytes
        self._library_error: type[Exception] = errors.BotoCoreError
        self._answered_error: type[Exception] = errors.ClientError
        with self._told("cannot be reached"):
            session = boto3.Session(profile_name=settings.profile or None, region_name=settings.region or None)
            self._client = session.client(
                "s3",
                # A server of one's own mostly has no region; the signature needs some word.
                region_name=session.region_name or ("us-east-1" if settings.endpoint else None),
                endpoint_url=settings.endpoint or None,
                config=config.Config(
                    connect_timeout=_CONNECT_S,
                    read_timeout=_ANSWER_S,
                    retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
                    # Servers of others know no checksums in trailers; what is stored is hashed by whoever stores it.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3={"addressing_style": "path"} if settings.endpoint else None,
                ),
            )

    def put(self, key: str, parts: Sequence[Bytes]) -> bool:
        """Keep the bytes under a key that is free, durable on return; False where it is not, and then nothing changed.

        Raises: StateError HR-0562 to HR-0565, HR-0569.
        """
        with self._told("cannot be written"):
            if sum(len(part) for part in parts) <= 2 * self._piece_bytes:
                return self._sent(
                    lambda: self._client.put_object(
                        Bucket=self.settings.bucket, Key=key, Body=b"".join(parts), IfNoneMatch="*"
                    )
                )
            return self._put_pieces(key, parts)

    def get(self, key: str) -> bytes | None:
        """The object's bytes; None where there is none."""
        with self._told("cannot be read"):
            try:
                answer = self._client.get_object(Bucket=self.settings.bucket, Key=key)
            except self._answered_error as error:
                if _code(error) in _GONE:
                    return None
                raise
            body: bytes = answer["Body"].read()
            return body

    def list(self, prefix: str) -> Iterator[Found]:
        """The objects whose key begins so, in order of their keys."""
        with self._told("cannot be listed"):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.settings.bucket, Prefix=prefix):
                for one in page.get("Contents", ()):
                    yield Found(one["Key"], one["Size"])

    def remove(self, keys: Sequence[str]) -> None:
        """Let objects go, one after the other; what is not there is gone already."""
        with self._told("cannot be written"):
            for key in keys:
                # One by one: servers of others differ in what they want of a request that removes many.
                self._client.delete_object(Bucket=self.settings.bucket, Key=key)

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """The large objects there that were begun and not finished; their pieces are paid for. None where the server
        does not list them."""
        with self._told("cannot be listed"):
            pages = self._client.get_paginator("list_multipart_uploads")
            try:
                for page in pages.paginate(Bucket=self.settings.bucket, Prefix=prefix):
                    for one in page.get("Uploads", ()):
                        yield Upload(one["Key"], one["UploadId"])
            except self._answered_error as error:
                if _code(error) != "NotImplemented":
                    raise

    def abort(self, upload: Upload) -> None:
        """Let the pieces of an unfinished object go."""
        with self._told("cannot be written"):
            try:
                self._client.abort_multipart_upload(Bucket=self.settings.bucket, Key=upload.key, UploadId=upload.id)
            except self._answered_error as error:
                if _code(error) != "NoSuchUpload":
                    raise

    def close(self) -> None:
        self._client.close()

    # --- inside ---

    def _put_pieces(self, key: str, parts: Sequence[Bytes]) -> bool:
        begun = self._client.create_multipart_upload(Bucket=self.settings.bucket, Key=key)
        upload = Upload(key, begun["UploadId"])
        try:
            done = []
            for number, piece in enumerate(_pieces(parts, self._piece_bytes), 1):
                answer = self._client.upload_part(
                    Bucket=self.settings.bucket, Key=key, UploadId=upload.id, PartNumber=number, Body=piece
                )
                done.append({"PartNumber": number, "ETag": answer["ETag"]})
            put = self._sent(
                lambda: self._client.complete_multipart_upload(
                    Bucket=self.settings.bucket,
                    Key=key,
                    UploadId=upload.id,
                    MultipartUpload={"Parts": done},
                    IfNoneMatch="*",
                )
            )
        except BaseException:
            self._abort_after_error(upload)
            raise
        if not put:
            self.abort(upload)
        return put

    def _abort_after_error(self, upload: Upload) -> None:
        """If it fails too, the pieces are left for whoever looks at `uploads`; the first error is the one to tell."""
        try:
            self.abort(upload)
        except StateError:
            pass

    def _sent(self, call: _Call) -> bool:
        """False where the condition was not met."""
        try:
            call()
        except self._answered_error as error:
            if _code(error) in _TAKEN:
                return False
            raise
        return True

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._answered_error as error:
            raise self._by_code(_code(error), what, str(error)) from error
        except self._library_error as error:
            if type(error).__name__ in _NO_CREDENTIALS:
                raise self._refused(str(error)) from error
            raise self._failed(what, str(error)) from error

    def _by_code(self, code: str, what: str, said: str) -> StateError:
        bucket = self.settings.bucket
        if code in _NO_BUCKET:
            return StateError(
                "HR-0563",
                f"there is no bucket {bucket!r}{self._where()}",
                hint="make it, or correct the address",
                bucket=bucket,
            )
        if code in _REFUSED:
            return self._refused(said)
        if code == "NotImplemented":
            return overwrites(bucket, said)
        if code in ("EntityTooLarge", "QuotaExceeded", "InsufficientStorage", "507"):
            return StateError(
                "HR-0562",
                f"no room in bucket {bucket!r}",
                detail=said,
                hint="free room; it is tried again by itself",
                retryable=True,
                bucket=bucket,
            )
        return self._failed(what, said)

    def _refused(self, said: str) -> StateError:
        return StateError(
            "HR-0564",
            f"bucket {self.settings.bucket!r}{self._where()}: the credentials are refused",
            detail=said,
            hint="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role say who asks",
            bucket=self.settings.bucket,
        )

    def _failed(self, what: str, said: str) -> StateError:
        return StateError(
            "HR-0565",
            f"bucket {self.settings.bucket!r}{self._where()} {what}",
            detail=said,
            hint="look at the endpoint and the network; it is tried again by itself",
            retryable=True,
            bucket=self.settings.bucket,
        )

    def _where(self) -> str:
        return f" at {self.settings.endpoint}" if self.settings.endpoint else ""


class _Call(Protocol):
    """A request that is ready to be sent."""

    def __call__(self) -> object: ...


def overwrites(bucket: str, said: str) -> StateError:
    """The error of a server that does not keep what is there."""
    return StateError(
        "HR-0569",
        f"the server of bucket {bucket!r} does not know conditional puts",
        detail=said,
        hint="use a server that keeps If-None-Match on puts: S3, MinIO, SeaweedFS, Ceph, R2",
        bucket=bucket,
    )


def _code(error: Exception) -> str:
    """What the server called it; its status where it said nothing."""
    answer = getattr(error, "response", {})
    return str(answer.get("Error", {}).get("Code", ""))


def _pieces(parts: Sequence[Bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of this size, the last one shorter."""
    held = bytearray()
    for part in parts:
        view = memoryview(part)
        at = 0
        while at < len(view):
            some = min(size - len(held), len(view) - at)
            held += view[at : at + some]
            at += some
            if len(held) == size:
                yield bytes(held)
                held = bytearray()
    if held:
        yield bytes(held)
