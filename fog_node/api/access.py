"""Who may read what. README.md of this folder has the table; this is the code of it.

A reader is known by the TLS certificate of its connection, which names a member; what the
member may read follows from its roles as the state has them at each request. Where the API
listens without TLS, which is on a loopback address only, whoever reads is the local operator.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from cryptography import x509
from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fog_node.ledger import Device, Ledger, State
from fog_node.network.certificates import member_of
from fog_node.protocol.governance import serial_bytes
from fog_node.protocol.keys import kid_hex
from fog_node.protocol.labels import Image
from fog_node.protocol.predictions import Subject, Thing
from fog_node.protocol.requests import Request as ServiceRequest
from fog_node.protocol.requests import Response as ServiceResponse
from fog_node.protocol.transactions import (
    Approve,
    Clone,
    Enrol,
    Evidence,
    Incident,
    Label,
    Prediction,
    Propose,
    ReinstateDevice,
    Revoke,
    RolloutReport,
    TestReport,
    TrainingRound,
    Transaction,
    Withdraw,
    parse_transaction,
)

from .errors import RequestError

# Members with one of these roles read the whole chain; `regulator` reads payloads beside it too.
CHAIN_ROLES = frozenset({"validator", "operator", "gateway", "trainer", "regulator"})
PAYLOAD_ROLES = frozenset({"regulator"})
# Says who belongs to the consortium and whose votes count: a fact for every member.
PUBLIC_KINDS = (Evidence, Revoke, Propose, Approve, Withdraw, ReinstateDevice)


@dataclass(frozen=True)
class Certificate:
    """What a TLS certificate says that the consortium's authority issued.

    Attributes:
        member: key id of the member; None where it names none, as the broker's.
        serial: its number.
        ends: when it expires.
    """

    member: bytes | None
    serial: int
    ends: dt.datetime

    @classmethod
    def of_peer(cls, tls: ssl.SSLObject) -> Certificate | None:
        """Read the certificate that the other side has shown; TLS has checked its issuer."""
        der = tls.getpeercert(binary_form=True)
        if der is None:
            return None
        certificate = x509.load_der_x509_certificate(der)
        return cls(
            member_of(certificate), certificate.serial_number, certificate.not_valid_after_utc
        )


@dataclass(frozen=True)
class Reader:
    """Who asks.

    Attributes:
        kid, name, roles: of the member; empty for the local operator.
        certificate: that it came with; None for the local operator.
    """

    kid: bytes = b""
    name: str = ""
    roles: frozenset[str] = frozenset()
    certificate: Certificate | None = None

    @property
    def reads_chain(self) -> bool:
        """Whether all blocks, transactions and devices are open to it."""
        return self.certificate is None or not CHAIN_ROLES.isdisjoint(self.roles)

    @property
    def reads_payloads(self) -> bool:
        """Whether payloads of others' requests are, too."""
        return self.certificate is None or not PAYLOAD_ROLES.isdisjoint(self.roles)

    def may_read_device(self, device: Device) -> bool:
        """Whether a device and what it signed are open to it."""
        return self.reads_chain or device.owner == self.name

    def may_read(self, transaction: Transaction, ledger: Ledger) -> bool:
        """Whether a transaction's content is open to it."""
        if self.reads_chain or transaction.signer == self.kid:
            return True
        body = transaction.body
        if isinstance(body, PUBLIC_KINDS):
            return True
        if isinstance(body, ServiceRequest | ServiceResponse):
            return self.is_party(transaction, ledger)
        if isinstance(body, Enrol):
            return body.owner == self.name
        if isinstance(body, Label):
            return self._owns_all((item.target for item in body.labels), ledger)
        if isinstance(body, Prediction):
            return self._owns_all(body.targets, ledger)
        if isinstance(body, TrainingRound):
            return self.kid in body.members
        kid: bytes | None = transaction.signer
        if isinstance(body, Incident | Clone | TestReport | RolloutReport):
            kid = body.device
        return kid is not None and self._owns(kid, ledger)

    def _owns_all(self, targets: Iterable[Subject], ledger: Ledger) -> bool:
        return all(
            not isinstance(target, Image | Thing) and self._owns(target.device, ledger)
            for target in targets
        )

    def _owns(self, kid: bytes, ledger: Ledger) -> bool:
        device = ledger.state.devices.get(kid)
        return device is not None and self.may_read_device(device)

    def is_party(self, transaction: Transaction, ledger: Ledger) -> bool:
        """Whether it signed a request or response, or is who that is meant for.

        Who may read a test report may read all of it.
        """
        if transaction.signer == self.kid:
            return True
        body = transaction.body
        if isinstance(body, TestReport):
            return self.may_read(transaction, ledger)
        if isinstance(body, ServiceRequest):
            return "provider" in self.roles and body.may_answer(self.kid)
        if isinstance(body, ServiceResponse):
            place = ledger.find(body.request)
            if place is None or place.signer != self.kid:
                return False
            asked = parse_transaction(place.raw).body
            return isinstance(asked, ServiceRequest) and asked.may_answer(transaction.signer)
        return False


LOCAL_OPERATOR = Reader()


def reader_of(certificate: Certificate, state: State, now: dt.datetime) -> Reader:
    """Return the member that a certificate names, if it is one now.

    Raises:
        RequestError: 403: no member, a revoked one, or an expired certificate.
    """
    if certificate.member is None:
        raise _refused("names no member", "have the authority issue one for a member")
    if now >= certificate.ends:
        raise _refused(
            f"expired at {certificate.ends.isoformat()}", "have the authority issue a new one"
        )
    if serial_bytes(certificate.serial) in state.revoked_certificates:
        raise _refused("is revoked", "have the authority issue a new one")
    record = state.members.get(certificate.member)
    who = kid_hex(certificate.member)
    if record is None:
        raise _refused(f"is for {who}, who is no member here", "ask for admission first")
    if record.status == "revoked":
        raise _refused(f"is for {record.name}, whose key is revoked", "ask the consortium")
    return Reader(record.kid, record.name, record.roles, certificate)


def still_reads_chain(reader: Reader, state: State) -> bool:
    """Whether somebody who follows the chain may go on."""
    if reader.certificate is None:
        return True
    try:
        return reader_of(reader.certificate, state, _now()).reads_chain
    except RequestError:
        return False


class Gate:
    """Stands before the whole application: finds out who asks, and refuses strangers."""

    def __init__(self, app: ASGIApp, ledger: Ledger, tls: bool) -> None:
        """Guard `app`; without `tls`, whoever asks is the local operator."""
        self._app = app
        self._ledger = ledger
        self._tls = tls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its reader in `scope["state"]["reader"]`."""
        if scope["type"] == "http":
            try:
                reader = self._reader(scope)
            except RequestError as error:
                await error.response()(scope, receive, send)
                return
            scope.setdefault("state", {})["reader"] = reader
        await self._app(scope, receive, send)

    def _reader(self, scope: Scope) -> Reader:
        if not self._tls:
            _check_host(scope)
            return LOCAL_OPERATOR
        certificate = scope.get("state", {}).get("certificate")
        if certificate is None:
            raise _refused("is missing", "connect with a member's certificate and key")
        return reader_of(certificate, self._ledger.state, _now())


def _check_host(scope: Scope) -> None:
    """Refuse what asks under another name than this machine's own.

    A web page whose name was made to lead to the loopback address, or a proxy, would else have
    its visitors read as the local operator.
    """
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    text = hosts[0] if hosts else ""
    name = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
    try:
        is_own = ipaddress.ip_address(name).is_loopback
    except ValueError:
        is_own = name.lower() == "localhost"
    if not is_own:
        raise RequestError(
            HTTPStatus.FORBIDDEN,
            "Host",
            f"is {text[:80]!r}, and only this machine's own user is served without TLS",
            "ask 127.0.0.1 or localhost; for others, set tls = true in [api]",
        )


async def _any_reader(request: Request) -> Reader:
    reader = request.state.reader
    assert isinstance(reader, Reader)
    return reader


async def _chain_reader(request: Request) -> Reader:
    reader = await _any_reader(request)
    if not reader.reads_chain:
        raise forbidden("path", f"is not open to {reader.name}")
    return reader


# What a route asks for to say who may read it: any member, or those that read the chain.
AnyReader = Annotated[Reader, Depends(_any_reader)]
ChainReader = Annotated[Reader, Depends(_chain_reader)]


def forbidden(field: str, problem: str) -> RequestError:
    """403 for what a member's roles do not open."""
    remedy = f"it needs to be yours, or one of the roles {', '.join(sorted(CHAIN_ROLES))}"
    return RequestError(HTTPStatus.FORBIDDEN, field, problem, remedy)


def _refused(problem: str, remedy: str) -> RequestError:
    return RequestError(HTTPStatus.FORBIDDEN, "certificate", problem, remedy)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
