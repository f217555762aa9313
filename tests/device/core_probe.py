"""Runs on the board: does what each line of the input asks, and prints the answer in hex.

sign SECRET DIGEST       raw and low-S signature
public SECRET            x || y
ecdh SECRET PUBLIC       x coordinate, or the error's code
reencode CBOR            decoded and encoded again, or the error's code
sign1 SECRET CHAIN SEQUENCE DROPPED PAYLOAD    a COSE_Sign1 pack
verify PUBLIC DIGEST SIGNATURE                 01 or 00
speed ROUNDS             us for table, signature, verification, agreement
"""

import sys
import time

from fogline import cbor, cose, keystore, p256
from fogline.errors import FoglineError


def sign(secret, digest):
    return (p256.sign_raw(secret, digest) + p256.sign(secret, digest)).hex()


def reencode(data):
    try:
        return cbor.encode(cbor.decode(data, 1 << 16)).hex()
    except FoglineError as error:
        return error.code


def sign1(secret, chain_id, sequence, dropped, payload):
    numbers = [int.from_bytes(number, "big") for number in (sequence, dropped)]
    key = keystore.BoardKey(secret, False)
    return cose.sign1(key, cose.PACK, payload, chain_id, *numbers).hex()


def verify(public, digest, signature):
    return "01" if p256.verify(public, digest, signature) else "00"


def ecdh(secret, public):
    try:
        return p256.ecdh(secret, public).hex()
    except FoglineError as error:
        return error.code


def speed(rounds):
    secret, digest = bytes(range(1, 33)), bytes(range(32))
    public = p256.public_key(secret)
    signature = p256.sign(secret, digest)
    p256._comb = None  # to build it again, with the clock running
    results = []
    for work, count in (
        (p256.prepare, 1),
        (lambda: p256.sign(secret, digest), rounds[0]),
        (lambda: p256.verify(public, digest, signature), rounds[0]),
        (lambda: p256.ecdh(secret, public), rounds[0]),
    ):
        start = time.ticks_us()
        for _ in range(count):
            work()
        results.append(str(time.ticks_diff(time.ticks_us(), start) // count))
    return " ".join(results)


ACTIONS = {
    "sign": sign,
    "public": lambda secret: p256.public_key(secret).hex(),
    "ecdh": ecdh,
    "reencode": reencode,
    "sign1": sign1,
    "verify": verify,
    "speed": speed,
}

for line in sys.stdin:
    action, *arguments = line.split(" ")
    print(ACTIONS[action](*[bytes.fromhex(argument.strip()) for argument in arguments]))
