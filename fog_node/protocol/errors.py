"""Errors of the formats.

ProtocolError               anything that is not as SPEC.md says
├── EncodingError           not deterministic CBOR, or over a size limit
├── FormatError             well-formed, but a field is missing, unknown or out of range
├── SignatureError          a signature or MAC does not verify
├── ProofError              a proof, certificate or inclusion path does not hold
└── RuleError               a proposal or an approval that what is on the chain speaks against
"""

from __future__ import annotations


class ProtocolError(ValueError):
    """Base of all format errors.

    Attributes:
        field: the field at fault, dotted, as SPEC.md names it.
        problem: what is wrong with it.
        remedy: what to do about it; empty when only the sender can.
    """

    def __init__(self, field: str, problem: str, remedy: str = "") -> None:
        self.field = field
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{field}: {problem}" + (f"; {remedy}" if remedy else ""))


class EncodingError(ProtocolError):
    """The bytes are not deterministic CBOR within the limits."""


class FormatError(ProtocolError):
    """A field is missing, unknown, of the wrong type or out of range."""


class SignatureError(ProtocolError):
    """A signature or message authentication code does not verify."""


class ProofError(ProtocolError):
    """A proof does not show what it claims."""


class RuleError(ProtocolError):
    """Well-formed and signed, but what is on the chain speaks against it."""
