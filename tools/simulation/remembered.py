"""What depends on bytes alone is worked out once per process, however many nodes ask.

Whether a signature verifies depends on key, message and signature, and what a message says
on its bytes. So what one simulated node found holds for all of them, and for all runs; and what
was signed here verifies. A daemon's own memory of what it verified is not touched, and what is
refused is refused.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from fog_node.protocol import block, cose, transactions, votes
from fog_node.protocol.errors import SignatureError
from fog_node.protocol.keys import PublicKey, SigningKey

MAX_REMEMBERED = 50_000
_PLAIN = frozenset((bytes, str, int))
_Parser = Callable[..., Any]
_Known = OrderedDict[tuple[bytes, bytes, bytes], SignatureError | None]
_PARSERS: tuple[_Parser, ...] = (
    block.parse_coinbase,
    cose.parse_sign1,
    transactions.parse_transaction,
    votes.parse_certificate,
    votes.parse_proposal,
    votes.parse_vote,
)


@contextmanager
def remembered() -> Iterator[None]:
    """Parse and verify everything once while this lasts; not for several threads."""
    verify, sign = PublicKey.verify, SigningKey.sign
    known: _Known = OrderedDict()
    PublicKey.verify = _once(verify, known)  # type: ignore[method-assign, assignment]
    SigningKey.sign = _noted(sign, known)  # type: ignore[method-assign, assignment]
    fast = {parser: _parse_once(parser) for parser in _PARSERS}
    _replace(fast)
    try:
        yield
    finally:
        _replace({cached: parser for parser, cached in fast.items()})
        PublicKey.verify = verify  # type: ignore[method-assign]
        SigningKey.sign = sign  # type: ignore[method-assign]


def _parse_once(parser: _Parser) -> _Parser:
    cached = lru_cache(MAX_REMEMBERED)(parser)

    def parse(*args: Any) -> Any:
        # Some take more than bytes, what is known already say.
        return cached(*args) if _PLAIN.issuperset(map(type, args)) else parser(*args)

    return parse


def _once(
    verify: Callable[[PublicKey, bytes, bytes], None], known: _Known
) -> Callable[[PublicKey, bytes, bytes], None]:
    def verify_once(self: PublicKey, signature: bytes, message: bytes) -> None:
        case = (self.xy, signature, message)
        if case not in known:
            try:
                verify(self, signature, message)
            except SignatureError as error:
                _note(known, case, error)
            else:
                _note(known, case, None)
        found = known[case]
        if found is not None:
            raise found

    return verify_once


def _noted(
    sign: Callable[[SigningKey, bytes], bytes], known: _Known
) -> Callable[[SigningKey, bytes], bytes]:
    def sign_and_note(self: SigningKey, message: bytes) -> bytes:
        signature = sign(self, message)
        _note(known, (self.public.xy, signature, message), None)
        return signature

    return sign_and_note


def _note(known: _Known, case: tuple[bytes, bytes, bytes], found: SignatureError | None) -> None:
    known[case] = found
    if len(known) > MAX_REMEMBERED:
        known.popitem(last=False)


def _replace(by: dict[_Parser, _Parser]) -> None:
    """Put functions in the place of others, wherever a module has them by name."""
    for name, module in list(sys.modules.items()):
        if not name.startswith(("fog_node", "tools.simulation")) or module is None:
            continue
        for attribute, value in list(vars(module).items()):
            if callable(value) and _is_key(value, by):
                setattr(module, attribute, by[value])


def _is_key(value: Any, by: dict[_Parser, _Parser]) -> bool:
    try:
        return value in by
    except TypeError:  # not hashable
        return False
