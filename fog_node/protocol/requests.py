"""What customers ask of providers, and what providers answer: payloads of two transactions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .cbor import decode, encode
from .errors import FormatError
from .keys import KID_BYTES
from .merkle import HASH_BYTES
from .validate import octets, text, text_map, time_ms, uint

MAX_SERVICE_CHARS = 64
# What is larger goes to the blob store: every node keeps each transaction for ever.
MAX_INLINE_BYTES = 16 * 1024
MAX_CONTENT_BYTES = 1024 * 1024
# The largest payload of the two kinds: inline content and 512 bytes for the rest.
MAX_PAYLOAD_BYTES = MAX_INLINE_BYTES + 512
# `accepted` says that an answer with one of the others follows.
OUTCOMES = ("accepted", "declined", "done", "failed")


@dataclass(frozen=True)
class Content:
    """What a request or response carries: the bytes themselves, or the name of a blob.

    Attributes:
        sha256, size: of the content, wherever it lies.
        inline: the content; None where it lies in the blob store.
    """

    sha256: bytes
    size: int
    inline: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Name `data`, and carry it where it is small enough; raises FormatError."""
        if len(data) > MAX_CONTENT_BYTES:
            raise FormatError("content", f"has {len(data)} bytes, at most {MAX_CONTENT_BYTES}")
        inline = data if len(data) <= MAX_INLINE_BYTES else None
        return cls(hashlib.sha256(data).digest(), len(data), inline)

    @classmethod
    def parse(cls, value: Any, field: str) -> Content:
        """Read what `value` gives; raises FormatError."""
        if isinstance(value, bytes):
            if len(value) > MAX_INLINE_BYTES:
                raise FormatError(
                    field,
                    f"has {len(value)} bytes, at most {MAX_INLINE_BYTES} are carried",
                    "put it into the blob store and name its SHA-256",
                )
            return cls(hashlib.sha256(value).digest(), len(value), value)
        blob = text_map(value, {"sha256", "size"}, field)
        return cls(
            octets(blob["sha256"], f"{field}.sha256", HASH_BYTES),
            uint(blob["size"], f"{field}.size", MAX_CONTENT_BYTES, at_least=1),
        )

    @property
    def value(self) -> bytes | dict[str, Any]:
        """As it stands in the payload."""
        if self.inline is not None:
            return self.inline
        return {"sha256": self.sha256, "size": self.size}


@dataclass(frozen=True)
class Request:
    """A customer asks for a service.

    Attributes:
        provider: key id of the member that is asked; None: any provider may answer.
        service: what is asked for, by its short name.
        content: the particulars.
        until: ms since 1970; an answer in a later block comes late.
        time: ms since 1970.
    """

    kind: ClassVar[str] = "request"
    provider: bytes | None
    service: str
    content: Content
    until: int
    time: int

    @classmethod
    def decode(cls, payload: bytes) -> Request:
        """Parse; raises EncodingError, FormatError."""
        names = {"provider", "service", "content", "until", "time"}
        value = text_map(decode(payload, MAX_PAYLOAD_BYTES, "request"), names, "request")
        provider = value["provider"]
        time = time_ms(value["time"], "request.time")
        until = time_ms(value["until"], "request.until")
        if until <= time:
            raise FormatError("request.until", "is not after request.time")
        return cls(
            provider=None if provider is None else octets(provider, "request.provider", KID_BYTES),
            service=text(value["service"], "request.service", MAX_SERVICE_CHARS),
            content=Content.parse(value["content"], "request.content"),
            until=until,
            time=time,
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode(
            {
                "provider": self.provider,
                "service": self.service,
                "content": self.content.value,
                "until": self.until,
                "time": self.time,
            }
        )

    def may_answer(self, provider: bytes) -> bool:
        """Whether a response of this member is an answer to the request."""
        return self.provider is None or self.provider == provider


@dataclass(frozen=True)
class Response:
    """A provider answers a request.

    Attributes:
        request: id of the request's transaction.
        outcome: one of OUTCOMES.
        content: what comes with it; None where nothing does.
        time: ms since 1970.
    """

    kind: ClassVar[str] = "response"
    request: bytes
    outcome: str
    content: Content | None
    time: int

    @classmethod
    def decode(cls, payload: bytes) -> Response:
        """Parse; raises EncodingError, FormatError."""
        names = {"request", "outcome", "content", "time"}
        value = text_map(decode(payload, MAX_PAYLOAD_BYTES, "response"), names, "response")
        if value["outcome"] not in OUTCOMES:
            raise FormatError("response.outcome", f"is not one of {', '.join(OUTCOMES)}")
        content = value["content"]
        return cls(
            request=octets(value["request"], "response.request", HASH_BYTES),
            outcome=value["outcome"],
            content=None if content is None else Content.parse(content, "response.content"),
            time=time_ms(value["time"], "response.time"),
        )

    def encode(self) -> bytes:
        """Deterministic CBOR of the payload."""
        return encode(
            {
                "request": self.request,
                "outcome": self.outcome,
                "content": None if self.content is None else self.content.value,
                "time": self.time,
            }
        )
