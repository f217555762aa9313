"""The inner loops of the operators that move a window over each channel by itself, in viper.

Arguments and arithmetic are those of `kernels_windows`; see there.
"""

from micropython import const

# As in `kernels`: viper knows the constants of its own module only.
_NO_TAP = const(0x8000)
_LEFT_SHIFT = const(8)
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


@micropython.viper
def depthwise(acc: int, p: ptr32, w: ptr8, x: ptr8, arg: ptr32):
    """Sum weighted windows channel by channel: DEPTHWISE_CONV_2D.

    `p` and `x` are both the arena, `w` the weights [kh][kw][cout], `acc` is not read. Every
    input channel makes cout / cin outputs.
    """
    arena = int(p)
    weights = int(w)
    source = arena + arg[_X]
    out = arena + arg[_OUT]
    sums = arena + arg[_SUMS]
    ymap = arena + arg[_YMAP]
    kh = arg[_KH]
    kw = arg[_KW]
    cin = arg[_CIN]
    cout = arg[_COUT]
    zx = arg[_ZX]
    zo = arg[_ZO]
    lowest = arg[_LOW]
    highest = arg[_HIGH]
    wrap = arg[_WRAP]
    fan = cout // cin
    rows = arg[_ROWS]
    while rows:
        xmap = arena + arg[_XMAP]
        cols = arg[_COLS]
        while cols:
            p = ptr32(sums)
            table = arena + arg[_TABLE]
            n = cout
            while n:
                p[0] = ptr32(table)[0]
                p = ptr32(int(p) + 4)
                table += 16
                n -= 1
            tap = weights
            yk = ymap
            ky = kh
            while ky:
                xk = xmap
                kx = kw
                while kx:
                    iy = ptr16(yk)[0]
                    ix = ptr16(xk)[0]
                    if (iy | ix) & _NO_TAP == 0:
                        p = ptr32(sums)
                        w = ptr8(tap)
                        x = ptr8(source + (iy * arg[_WIDTH] + ix) * cin)
                        n = cin
                        if fan == 1:
                            while n > 3:
                                p[0] = ((w[0] ^ 128) - 128) * (x[0] - zx) + p[0]
                                p[1] = ((w[1] ^ 128) - 128) * (x[1] - zx) + p[1]
                                p[2] = ((w[2] ^ 128) - 128) * (x[2] - zx) + p[2]
                                p[3] = ((w[3] ^ 128) - 128) * (x[3] - zx) + p[3]
                                p = ptr32(int(p) + 16)
                                w = ptr8(int(w) + 4)
                                x = ptr8(int(x) + 4)
                                n -= 4
                        while n:
                            v = x[0] - zx
                            m = fan
                            while m:
                                p[0] = ((w[0] ^ 128) - 128) * v + p[0]
                                p = ptr32(int(p) + 4)
                                w = ptr8(int(w) + 1)
                                m -= 1
                            x = ptr8(int(x) + 1)
                            n -= 1
                    tap += cout
                    xk += 2
                    kx -= 1
                yk += 2
                ky -= 1
            at = sums
            table = arena + arg[_TABLE]
            m = cout
            while m:
                acc = (ptr32(at)[0] << wrap) >> wrap
                p = ptr32(table)
                if p[3] >> _LEFT_SHIFT:
                    acc = (acc << ((p[3] >> _LEFT_SHIFT) + wrap)) >> wrap
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
                at += 4
                table += 16
                m -= 1
            xmap += kw << 1
            cols -= 1
        ymap += kh << 1
        rows -= 1


@micropython.viper
def max_pool(p: ptr8, x: ptr8, arg: ptr32):
    """Take the largest value of each channel's window; a one-tap window copies.

    `p` and `x` are both the arena.
    """
    arena = int(p)
    source = arena + arg[_X]
    out = arena + arg[_OUT]
    ymap = arena + arg[_YMAP]
    kh = arg[_KH]
    kw = arg[_KW]
    channels = arg[_CIN]
    rows = arg[_ROWS]
    while rows:
        xmap = arena + arg[_XMAP]
        cols = arg[_COLS]
        while cols:
            p = ptr8(out)
            n = channels
            while n:
                p[0] = arg[_LOW]
                p = ptr8(int(p) + 1)
                n -= 1
            yk = ymap
            ky = kh
            while ky:
                xk = xmap
                kx = kw
                while kx:
                    iy = ptr16(yk)[0]
                    ix = ptr16(xk)[0]
                    if (iy | ix) & _NO_TAP == 0:
                        p = ptr8(out)
                        x = ptr8(source + (iy * arg[_WIDTH] + ix) * channels)
                        n = channels
                        while n:
                            if x[0] > p[0]:
                                p[0] = x[0]
                            p = ptr8(int(p) + 1)
                            x = ptr8(int(x) + 1)
                            n -= 1
                    xk += 2
                    kx -= 1
                yk += 2
                ky -= 1
            p = ptr8(out)
            n = channels
            while n:
                if p[0] > arg[_HIGH]:
                    p[0] = arg[_HIGH]
                p = ptr8(int(p) + 1)
                n -= 1
            out += channels
            xmap += kw << 1
            cols -= 1
        ymap += kh << 1
        rows -= 1


@micropython.viper
def average_pool(p: ptr32, x: ptr8, arg: ptr32):
    """Average each channel's window, rounding to nearest, ties away from zero.

    `p` and `x` are both the arena. Every window must have a tap inside the input.
    """
    arena = int(p)
    source = arena + arg[_X]
    out = arena + arg[_OUT]
    sums = arena + arg[_SUMS]
    ymap = arena + arg[_YMAP]
    kh = arg[_KH]
    kw = arg[_KW]
    channels = arg[_CIN]
    rows = arg[_ROWS]
    while rows:
        xmap = arena + arg[_XMAP]
        cols = arg[_COLS]
        while cols:
            p = ptr32(sums)
            n = channels
            while n:
                p[0] = 0
                p = ptr32(int(p) + 4)
                n -= 1
            count = 0
            yk = ymap
            ky = kh
            while ky:
                xk = xmap
                kx = kw
                while kx:
                    iy = ptr16(yk)[0]
                    ix = ptr16(xk)[0]
                    if (iy | ix) & _NO_TAP == 0:
                        count += 1
                        p = ptr32(sums)
                        x = ptr8(source + (iy * arg[_WIDTH] + ix) * channels)
                        n = channels
                        while n:
                            p[0] = p[0] + x[0]
                            p = ptr32(int(p) + 4)
                            x = ptr8(int(x) + 1)
                            n -= 1
                    xk += 2
                    kx -= 1
                yk += 2
                ky -= 1
            p = ptr32(sums)
            n = channels
            while n:
                v = p[0] - (count << 7)
                if v > 0:
                    v = (v + (count >> 1)) // count + 128
                else:
                    v = 128 - ((count >> 1) - v) // count
                if v < arg[_LOW]:
                    v = arg[_LOW]
                if v > arg[_HIGH]:
                    v = arg[_HIGH]
                ptr8(out)[0] = v
                out += 1
                p = ptr32(int(p) + 4)
                n -= 1
            xmap += kw << 1
            cols -= 1
        ymap += kh << 1
        rows -= 1
