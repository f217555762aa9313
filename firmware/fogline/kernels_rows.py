"""The inner loops of the operators that look up, sum or copy bytes, in viper."""

from micropython import const

_LEFT_SHIFT = const(8)  # as in `kernels`: viper knows the constants of its own module only


@micropython.viper
def sum_axis(p: ptr32, x: ptr8, arena: ptr8, arg: ptr32):
    """Sum x, seen as [outer][count][inner], over the middle into 32-bit sums[outer][inner].

    `arg` holds the offsets of x and sums in the arena, then outer, count and inner, and
    whether the sums go on from what is there.
    """
    x = ptr8(int(arena) + arg[0])
    row = int(arena) + arg[1]
    inner = arg[4]
    outer = arg[2]
    while outer:
        n = inner
        if arg[5]:
            n = 0
        p = ptr32(row)
        while n:
            p[0] = 0
            p = ptr32(int(p) + 4)
            n -= 1
        count = arg[3]
        while count:
            p = ptr32(row)
            n = inner
            while n > 3:
                p[0] = p[0] + x[0]
                p[1] = p[1] + x[1]
                p[2] = p[2] + x[2]
                p[3] = p[3] + x[3]
                p = ptr32(int(p) + 16)
                x = ptr8(int(x) + 4)
                n -= 4
            while n:
                p[0] = p[0] + x[0]
                p = ptr32(int(p) + 4)
                x = ptr8(int(x) + 1)
                n -= 1
            count -= 1
        row += inner << 2
        outer -= 1


@micropython.viper
def requantize(acc: int, p: ptr32, arg: ptr32):
    """Bring 32-bit sums to the output's scale; the arithmetic is that of `kernels_windows`.

    `p` is the arena, `arg` holds the offsets there of sums, output and a one-channel
    requantization table, how many sums, the output's zero point + 128, and the wrap; `acc` is not
    read.
    """
    arena = int(p)
    sums = arena + arg[0]
    out = arena + arg[1]
    p = ptr32(arena + arg[2])
    left = arg[3]
    zo = arg[4]
    wrap = arg[5]
    while left:
        acc = ptr32(sums)[0] + p[0]
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
        sums += 4
        out += 1
        left -= 1


@micropython.viper
def look_up(x: ptr8, out: ptr8, table: ptr8, arg: ptr32):
    """Map every byte through a table of 256; `arg`: offsets of x, out and table, the length.

    The three pointers are all the arena.
    """
    x = ptr8(int(x) + arg[0])
    out = ptr8(int(out) + arg[1])
    table = ptr8(int(table) + arg[2])
    n = arg[3]
    while n > 3:
        out[0] = table[x[0]]
        out[1] = table[x[1]]
        out[2] = table[x[2]]
        out[3] = table[x[3]]
        x = ptr8(int(x) + 4)
        out = ptr8(int(out) + 4)
        n -= 4
    while n:
        out[0] = table[x[0]]
        x = ptr8(int(x) + 1)
        out = ptr8(int(out) + 1)
        n -= 1


@micropython.viper
def look_up_words(x: ptr8, out: ptr32, table: ptr32, arg: ptr32):
    """Map every byte through a table of 256 words; arguments as in `look_up`."""
    x = ptr8(int(x) + arg[0])
    out = ptr32(int(out) + arg[1])
    table = ptr32(int(table) + arg[2])
    n = arg[3]
    while n:
        out[0] = table[x[0]]
        x = ptr8(int(x) + 1)
        out = ptr32(int(out) + 4)
        n -= 1


@micropython.viper
def copy_rows(x: ptr8, out: ptr8, arg: ptr32):
    """Copy rows of bytes.

    `arg`: offset in x, offset in out, rows, bytes of each, how far apart they lie in out, and
    128 to turn int8 into q + 128 on the way, else 0. In x they lie next to each other.
    """
    x = ptr8(int(x) + arg[0])
    row = int(out) + arg[1]
    mask = arg[5]
    rows = arg[2]
    while rows:
        out = ptr8(row)
        n = arg[3]
        while n > 3:
            out[0] = x[0] ^ mask
            out[1] = x[1] ^ mask
            out[2] = x[2] ^ mask
            out[3] = x[3] ^ mask
            out = ptr8(int(out) + 4)
            x = ptr8(int(x) + 4)
            n -= 4
        while n:
            out[0] = x[0] ^ mask
            out = ptr8(int(out) + 1)
            x = ptr8(int(x) + 1)
            n -= 1
        row += arg[4]
        rows -= 1


@micropython.viper
def clamp(out: ptr8, at: int, length: int, limits: int):
    """Bring `length` bytes into a range; `limits`: the lowest << 8 | the highest."""
    out = ptr8(int(out) + at)
    lowest = limits >> 8
    highest = limits & 255
    while length:
        if out[0] < lowest:
            out[0] = lowest
        if out[0] > highest:
            out[0] = highest
        out = ptr8(int(out) + 1)
        length -= 1


@micropython.viper
def fill(out: ptr8, at: int, length: int, value: int):
    """Write `length` bytes of `value`."""
    out = ptr8(int(out) + at)
    while length:
        out[0] = value
        out = ptr8(int(out) + 1)
        length -= 1
