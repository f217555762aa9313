"""The formats and nothing else: bytes in, checked objects out. SPEC.md says each rule.

No clock, socket or disk; imports nothing of the rest of Fogline.
"""

from .block import Block, Coinbase, Header, hash_hex, parse_block, sign_coinbase
from .errors import EncodingError, FormatError, ProofError, ProtocolError, SignatureError
from .founding import Founding, Member, Parameters, parse_founding
from .keys import PublicKey, SigningKey
from .proof import Proof, parse_proof, prove_inclusion
from .sealed_header import LightChain, SealedHeader
from .transactions import Transaction, parse_transaction, sign_transaction
from .votes import Certificate, Vote, parse_certificate, parse_vote, sign_vote

__all__ = [
    "Block",
    "Certificate",
    "Coinbase",
    "EncodingError",
    "FormatError",
    "Founding",
    "Header",
    "LightChain",
    "Member",
    "Parameters",
    "Proof",
    "ProofError",
    "ProtocolError",
    "PublicKey",
    "SealedHeader",
    "SignatureError",
    "SigningKey",
    "Transaction",
    "Vote",
    "hash_hex",
    "parse_block",
    "parse_certificate",
    "parse_founding",
    "parse_proof",
    "parse_transaction",
    "parse_vote",
    "prove_inclusion",
    "sign_coinbase",
    "sign_transaction",
    "sign_vote",
]
