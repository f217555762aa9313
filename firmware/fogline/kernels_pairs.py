"""The inner loops of the operators with two operands, in viper.

The arithmetic is that of `kernels_windows`.
"""

from array import array

from micropython import const
from uctypes import addressof

from .kernels import WRAP, fast, wide

_LEFT_SHIFT = const(8)  # as in `kernels`: viper knows the constants of its own module only

_A = const(0)
_B = const(1)
_SUM = const(2)
_OF_A = const(3)
_OF_B = const(4)
_FACTOR = const(5)
_ROUNDS = const(6)
_LENGTH = const(7)
_STEP_A = const(8)
_STEP_B = const(9)
_TURN_A = const(10)
_TURN_B = const(11)
_PAIR_ZO = const(12)
_PAIR_WRAP = const(13)
_PAIR_OWN_WORDS = const(4)  # that `add` in assembler keeps behind a block


def pair_block(places, about, sizes, steps, turns, zero_point):
    """Return the argument block of the kernels with two operands, `a` and `b`.

    Args:
        places: offsets of the operands (in the arena, or in a constant) and of the result in
            the arena, in bytes.
        about: for `add`, offsets in the arena of a table of 256 words for each operand; for
            `multiply`, of each its zero point + 128, times 256, plus 128 if it is a constant:
            those lie as int8 in the file. Then the offset of a one-channel requantization table.
        sizes: rounds, and results of each.
        steps: how far each operand moves from one result to the next: 0 or 1.
        turns: how far it moves besides at the end of a round.
        zero_point: of the result, + 128.
    """
    return array("i", places + about + sizes + steps + turns + (zero_point, WRAP))


def add_call(arena, a, b, block):
    """Return (function, arguments) of the chosen `add`; the memory must stay in its place."""
    kernel = fast("add")
    if kernel is None:
        return add, (0, arena, a, b, block)
    return kernel, (machine_block(arena, a, b, block), arena, a, b)


def machine_block(arena, a, b, block):
    """Return the block of `add` in assembler: addresses for offsets, and room of its own.

    In the place of the wrap it has whether the processor has all of ARMv7-M's instructions.
    """
    words = array("I", (word & 0xFFFFFFFF for word in block))
    for index, memory in enumerate((a, b, arena, arena, arena, arena)):
        words[index] += addressof(memory)
    words[_PAIR_WRAP] = wide()
    words.extend(array("I", (0,) * _PAIR_OWN_WORDS))
    return words


@micropython.viper
def add(acc: int, p: ptr32, a: ptr8, b: ptr8, arg: ptr32):
    """Add two tensors, both rescaled by a table of 256 words; see `pair_block`.

    `p` is the arena, `acc` is not read.
    """
    arena = int(p)
    a = ptr8(int(a) + arg[_A])
    b = ptr8(int(b) + arg[_B])
    out = arena + arg[_SUM]
    table_a = ptr32(arena + arg[_OF_A])
    table_b = ptr32(arena + arg[_OF_B])
    p = ptr32(arena + arg[_FACTOR])
    step_a = arg[_STEP_A]
    step_b = arg[_STEP_B]
    zo = arg[_PAIR_ZO]
    wrap = arg[_PAIR_WRAP]
    rounds = arg[_ROUNDS]
    while rounds:
        m = arg[_LENGTH]
        while m:
            acc = table_a[a[0]] + table_b[b[0]]
            if wrap:
                acc = (acc << wrap) >> wrap
            if not p[2]:
                acc = (acc << ((p[3] >> _LEFT_SHIFT) + wrap)) >> wrap
            n = acc & 65535
            acc >>= 16
            t = int(uint(n * ptr16(p)[2]) >> 16) + acc * ptr16(p)[2]
            n = n * ptr16(p)[3] + (t & 65535)
            t = (t >> 16) + acc * ptr16(p)[3]
            if p[2]:
                acc = (t + (n + ((acc >> 15 | 1) << 14) >> 16) + p[2] >> p[3]) + zo
            else:
                acc = (t << 1) + (n + 16384 >> 15)
                if p[3] & 1:
                    acc = (acc + (acc >> 31) + 1) >> 1
                acc += zo
            if acc >> 8:
                acc = ~(acc >> 31)
            ptr8(out)[0] = acc
            a = ptr8(int(a) + step_a)
            b = ptr8(int(b) + step_b)
            out += 1
            m -= 1
        a = ptr8(int(a) + ((arg[_TURN_A] << wrap) >> wrap))
        b = ptr8(int(b) + ((arg[_TURN_B] << wrap) >> wrap))
        rounds -= 1


@micropython.viper
def multiply(acc: int, p: ptr32, a: ptr8, b: ptr8, arg: ptr32):
    """Multiply two tensors; see `pair_block`. `p` is the arena, `acc` is not read."""
    arena = int(p)
    a = ptr8(int(a) + arg[_A])
    b = ptr8(int(b) + arg[_B])
    out = arena + arg[_SUM]
    flip_a = arg[_OF_A] & 255
    flip_b = arg[_OF_B] & 255
    za = arg[_OF_A] >> 8
    zb = arg[_OF_B] >> 8
    p = ptr32(arena + arg[_FACTOR])
    step_a = arg[_STEP_A]
    step_b = arg[_STEP_B]
    zo = arg[_PAIR_ZO]
    wrap = arg[_PAIR_WRAP]
    rounds = arg[_ROUNDS]
    while rounds:
        m = arg[_LENGTH]
        while m:
            acc = ((a[0] ^ flip_a) - za) * ((b[0] ^ flip_b) - zb)
            if not p[2]:
                acc = (acc << ((p[3] >> _LEFT_SHIFT) + wrap)) >> wrap
            n = acc & 65535
            acc >>= 16
            t = int(uint(n * ptr16(p)[2]) >> 16) + acc * ptr16(p)[2]
            n = n * ptr16(p)[3] + (t & 65535)
            t = (t >> 16) + acc * ptr16(p)[3]
            if p[2]:
                acc = (t + (n + ((acc >> 15 | 1) << 14) >> 16) + p[2] >> p[3]) + zo
            else:
                acc = (t << 1) + (n + 16384 >> 15)
                if p[3] & 1:
                    acc = (acc + (acc >> 31) + 1) >> 1
                acc += zo
            if acc >> 8:
                acc = ~(acc >> 31)
            ptr8(out)[0] = acc
            a = ptr8(int(a) + step_a)
            b = ptr8(int(b) + step_b)
            out += 1
            m -= 1
        a = ptr8(int(a) + ((arg[_TURN_A] << wrap) >> wrap))
        b = ptr8(int(b) + ((arg[_TURN_B] << wrap) >> wrap))
        rounds -= 1
