"""The inner loops of the int8 operators, and which of them this board can run.

Here they are in viper, which every board has; `kernels_thumb` and `kernels_rv32` have the most
frequent ones in assembler, for boards whose MicroPython has one. All give the same bytes.

Activations lie in the arena as unsigned bytes q + 128, because viper loads bytes unsigned;
weights stay in the file as they are, and `w ^ 128` reads one as w + 128. A sum of
(w + 128) * a is too large by 128 * sum(a), which is taken off once per output position.

viper's integers are the machine's words: 32 bits on boards, 64 on a desktop, where a 32-bit
load is not sign-extended either. So sums are left to run over and cut to 32 bits with
`<< wrap >> wrap`, wrap being the bits a word has beyond 32. Both give the same bytes.

The first three locals live in registers, so each kernel's hottest ones come first.

Requantizing a 32-bit sum by m * 2**(shift - 31) needs the top of a 64-bit product. With
m = (65536 - q) * 2**15 + l and the sum = high * 2**16 + low no term leaves 32 bits:
    (sum * m + 2**30) >> 31 = sum - high * q + floor((t - low * q) / 2**16),
    t = 2 * high * l + (low * l >> 15) + 2**15.
A second rounding, ties away from zero, follows the shift to the right.
"""

import sys
from array import array

from micropython import const
from uctypes import addressof

from .errors import ModelError

WRAP = 32 if sys.maxsize >> 31 else 0
NO_TAP = const(0x8000)  # in a map: this tap of the window lies outside the input
TAIL_BYTES = const(7)  # `windows` reads so far past the end of the weights
CHANNEL_WORDS = const(4)  # of a requantization table, per output channel
LEFT_SHIFT = const(8)  # a table's fourth word: right shift | left shift << LEFT_SHIFT

_X = const(0)
_OUT = const(1)
_SUMS = const(2)
_RUNS = const(3)
_TABLE = const(4)
_YMAP = const(5)
_XMAP = const(6)
_ROWS = const(7)
_COLS = const(8)
_KH = const(9)
_KW = const(10)
_WIDTH = const(11)
_CIN = const(12)
_COUT = const(13)
_ZX = const(14)
_ZO = const(15)
_LOW = const(16)
_HIGH = const(17)
_WRAP = const(18)


def window_block(places, positions, taps, sizes, values):
    """Return the argument block of the windowed kernels.

    Args:
        places: offsets in the arena, in bytes: input, output, sums, runs, table, ymap, xmap.
        positions: rows and columns of the output; batches are further rows.
        taps: rows and columns of the window. Tap ky of row y reads input row
            ymap[y * kh + ky], tap kx of column x reads input column xmap[x * kw + kx]; NO_TAP
            reads nothing.
        sizes: columns of the input, its channels, channels of the output.
        values: zero points of input and output, lowest and highest output, all + 128.
    """
    return array("i", places + positions + taps + sizes + values + (WRAP,))


# By the machine that `sys.implementation` names: assembler, and kernels from fast to slow.
_ASSEMBLERS = {4: ("thumb", ("thumb",)), 11: ("rv32", ("rv32",))}
_ARMV7M = (5, 6, 7, 8)
_PLACES = const(7)  # words of a block that are offsets in the arena
_OWN_WORDS = const(11)  # that a kernel in assembler keeps behind a block

_chosen = None


def available():
    """Return the names of the kernels that this board can run, the fastest first."""
    architecture = getattr(sys.implementation, "_mpy", 0) >> 10 & 15
    if architecture in _ARMV7M:
        assembler, names = "thumb", ("thumb2", "thumb")
    else:
        assembler, names = _ASSEMBLERS.get(architecture, ("", ()))
    if assembler:
        try:
            exec("@micropython.asm_%s\ndef empty():\n pass" % assembler, {})
        except SyntaxError:  # built without one
            names = ()
    return names + ("viper",)


def use(name=None):
    """Take these kernels from the next `allocate` on, the fastest by default; returns the name.

    Raises ModelError `model.kernel` for one that this board cannot run.
    """
    global _chosen
    names = available()
    if name is None:
        name = names[0]
    if name not in names:
        raise ModelError("model.kernel", "%s: this board has %s" % (name, ", ".join(names)))
    _chosen = name
    return name


def fast(name):
    """Return the chosen kernel `name` in assembler, or None where viper serves."""
    kernel = _chosen or use()
    if kernel == "viper":
        return None
    if kernel == "rv32":
        from . import kernels_rv32

        return getattr(kernels_rv32, name)
    from . import kernels_thumb

    return getattr(kernels_thumb, name)


def windows_call(arena, weights, block):
    """Return (function, arguments) of the chosen `windows`; the memory must stay in its place."""
    if fast("windows") is None:
        return windows, (0, arena, weights, block)
    return machine_call(arena, weights, block, depthwise=0)


def machine_call(arena, weights, block, depthwise):
    """Return (function, arguments) of the kernel in assembler, which knows both kinds of windows.

    Its block has addresses for offsets. In the place of the wrap, which it has no use for, stands
    the address of the weights, behind it whether the processor has all of ARMv7-M's instructions,
    then room of its own, and in the end the kind.
    """
    words = array("I", block)
    for index in range(_PLACES):
        words[index] += addressof(arena)
    words[_WRAP] = addressof(weights)
    wide = 1 if _chosen == "thumb2" else 0
    words.extend(array("I", (wide,) + (0,) * _OWN_WORDS + (depthwise,)))
    return fast("windows"), (words, arena, weights)


@micropython.viper
def windows(acc: int, p: ptr32, w: ptr8, arg: ptr32):
    """Sum weighted windows over all input channels: CONV_2D and its relatives.

    `p` is the arena, `w` the weights [cout][kh][kw][cin], `acc` is not read. Per output
    position the taps inside the input are gathered once, with the zero point taken off, into
    runs whose weights are contiguous; zeros fill each run up to a multiple of eight.
    """
    arena = int(p)
    weights = int(w)
    x = arena + arg[_X]
    out = arena + arg[_OUT]
    sums = arena + arg[_SUMS]
    runs = arena + arg[_RUNS]
    ymap = arena + arg[_YMAP]
    kh = arg[_KH]
    kw = arg[_KW]
    cin = arg[_CIN]
    zx = arg[_ZX]
    zo = arg[_ZO]
    lowest = arg[_LOW]
    highest = arg[_HIGH]
    wrap = arg[_WRAP]
    stride = kh * kw * cin
    rows = arg[_ROWS]
    while rows:
        xmap = arena + arg[_XMAP]
        cols = arg[_COLS]
        while cols:
            acc = 0
            p = ptr32(sums)
            run = runs
            length = 0
            tap = 0
            yk = ymap
            ky = kh
            while ky:
                xk = xmap
                kx = kw
                while kx:
                    iy = ptr16(yk)[0]
                    ix = ptr16(xk)[0]
                    if (iy | ix) & NO_TAP:
                        if length:
                            while length & 7:
                                p[0] = 0
                                p = ptr32(int(p) + 4)
                                length += 1
                            ptr32(run)[1] = length
                            run += 8
                            length = 0
                    else:
                        if length == 0:
                            ptr32(run)[0] = tap
                        length += cin
                        w = ptr8(x + (iy * arg[_WIDTH] + ix) * cin)
                        n = cin >> 2
                        while n:
                            p[0] = w[0] - zx
                            acc += p[0]
                            p[1] = w[1] - zx
                            acc += p[1]
                            p[2] = w[2] - zx
                            acc += p[2]
                            p[3] = w[3] - zx
                            acc += p[3]
                            w = ptr8(int(w) + 4)
                            p = ptr32(int(p) + 16)
                            n -= 1
                        n = cin & 3
                        while n:
                            p[0] = w[0] - zx
                            acc += p[0]
                            w = ptr8(int(w) + 1)
                            p = ptr32(int(p) + 4)
                            n -= 1
                    tap += cin
                    xk += 2
                    kx -= 1
                yk += 2
                ky -= 1
            if length:
                while length & 7:
                    p[0] = 0
                    p = ptr32(int(p) + 4)
                    length += 1
                ptr32(run)[1] = length
                run += 8
            bias = acc << 7
            row = weights
            table = arena + arg[_TABLE]
            channels = arg[_COUT]
            while channels:
                acc = ptr32(table)[0] - bias
                p = ptr32(sums)
                at = runs
                while at < run:
                    w = ptr8(row + ptr32(at)[0])
                    n = ptr32(at)[1]
                    while n:
                        acc += (w[0] ^ 128) * p[0]
                        acc += (w[1] ^ 128) * p[1]
                        acc += (w[2] ^ 128) * p[2]
                        acc += (w[3] ^ 128) * p[3]
                        acc += (w[4] ^ 128) * p[4]
                        acc += (w[5] ^ 128) * p[5]
                        acc += (w[6] ^ 128) * p[6]
                        acc += (w[7] ^ 128) * p[7]
                        w = ptr8(int(w) + 8)
                        p = ptr32(int(p) + 32)
                        n -= 8
                    at += 8
                acc = (acc << wrap) >> wrap
                p = ptr32(table)
                if p[3] >> LEFT_SHIFT:
                    acc = (acc << ((p[3] >> LEFT_SHIFT) + wrap)) >> wrap
                n = (acc & 65535) * p[1]
                t = (((acc >> 16) * p[2]) << 1) + (((acc & 65535) * p[2]) >> 15) + 32768
                acc += (
                    (t >> 16) - (acc >> 16) * p[1] - (n >> 16) + (((t & 65535) - (n & 65535)) >> 16)
                )
                if p[3] & 31:
                    acc = (((acc + (acc >> 31)) >> (p[3] - 1)) + 1) >> 1
                acc += zo
                if acc < lowest:
                    acc = lowest
                if acc > highest:
                    acc = highest
                ptr8(out)[0] = acc
                out += 1
                row += stride
                table += 16
                channels -= 1
            xmap += kw << 1
            cols -= 1
        ymap += kh << 1
        rows -= 1


@micropython.viper
def flip(out: ptr8, x: ptr8, out_at: int, x_at: int, length: int):
    """Copy `length` bytes, turning int8 into q + 128 or back."""
    out = ptr8(int(out) + out_at)
    x = ptr8(int(x) + x_at)
    while length:
        out[0] = x[0] ^ 128
        out = ptr8(int(out) + 1)
        x = ptr8(int(x) + 1)
        length -= 1
