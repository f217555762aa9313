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
def depthwise(acc: int, p: ptr32, w: ptr32, arg: ptr32):
    """Sum weighted windows channel by channel: DEPTHWISE_CONV_2D.

    `p` is the arena, `w` the weights as words [kh][kw][cout], `acc` is not read. Every input
    channel makes cout / cin outputs. Taps outside the input read a row of its zero point, whose
    share of each sum is in the bias.
    """
    arena = int(p)
    weights = int(w)
    source = arena + arg[_X]
    out = arena + arg[_OUT]
    sums = arena + arg[_SUMS]
    outside = arena + arg[_RUNS]
    ymap = arena + arg[_YMAP]
    kh = arg[_KH]
    kw = arg[_KW]
    cin = arg[_CIN]
    cout = arg[_COUT]
    zo = arg[_ZO]
    wrap = arg[_WRAP]
    fan = cout // cin
    at = outside
    n = cin
    while n:
        ptr8(at)[0] = arg[_ZX]
        at += 1
        n -= 1
    rows = arg[_ROWS]
    while rows:
        xmap = arena + arg[_XMAP]
        cols = arg[_COLS]
        while cols:
            p = ptr32(sums)
            acc = arena + arg[_TABLE]
            n = cout >> 2
            while n:
                p[0] = ptr32(acc)[0]
                p[1] = ptr32(acc)[4]
                p[2] = ptr32(acc)[8]
                p[3] = ptr32(acc)[12]
                p = ptr32(int(p) + 16)
                acc += 64
                n -= 1
            n = cout & 3
            while n:
                p[0] = ptr32(acc)[0]
                p = ptr32(int(p) + 4)
                acc += 16
                n -= 1
            tap = weights
            yk = ymap
            ky = kh
            while ky:
                iy = ptr16(yk)[0]
                row = source + iy * arg[_WIDTH] * cin
                xk = xmap
                kx = kw
                while kx:
                    acc = ptr16(xk)[0]
                    acc = outside if (iy | acc) & _NO_TAP else row + acc * cin
                    p = ptr32(sums)
                    w = ptr32(tap)
                    n = cin
                    if fan == 1:
                        n = cin >> 3
                        while n:
                            p[0] = w[0] * ptr8(acc)[0] + p[0]
                            p[1] = w[1] * ptr8(acc)[1] + p[1]
                            p[2] = w[2] * ptr8(acc)[2] + p[2]
                            p[3] = w[3] * ptr8(acc)[3] + p[3]
                            p[4] = w[4] * ptr8(acc)[4] + p[4]
                            p[5] = w[5] * ptr8(acc)[5] + p[5]
                            p[6] = w[6] * ptr8(acc)[6] + p[6]
                            p[7] = w[7] * ptr8(acc)[7] + p[7]
                            p = ptr32(int(p) + 32)
                            w = ptr32(int(w) + 32)
                            acc += 8
                            n -= 1
                        n = cin & 7
                        if n > 3:
                            p[0] = w[0] * ptr8(acc)[0] + p[0]
                            p[1] = w[1] * ptr8(acc)[1] + p[1]
                            p[2] = w[2] * ptr8(acc)[2] + p[2]
                            p[3] = w[3] * ptr8(acc)[3] + p[3]
                            p = ptr32(int(p) + 16)
                            w = ptr32(int(w) + 16)
                            acc += 4
                            n -= 4
                    while n:
                        m = fan
                        while m:
                            p[0] = w[0] * ptr8(acc)[0] + p[0]
                            p = ptr32(int(p) + 4)
                            w = ptr32(int(w) + 4)
                            m -= 1
                        acc += 1
                        n -= 1
                    tap += cout << 2
                    xk += 2
                    kx -= 1
                yk += 2
                ky -= 1
            at = sums
            p = ptr32(arena + arg[_TABLE])
            m = cout
            while m:
                acc = ptr32(at)[0]
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
                out += 1
                at += 4
                p = ptr32(int(p) + 16)
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
    low = arg[_LOW]
    high = arg[_HIGH]
    rows = arg[_ROWS]
    while rows:
        xmap = arena + arg[_XMAP]
        cols = arg[_COLS]
        while cols:
            p = ptr8(out)
            n = channels
            while n:
                p[0] = low
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
                        n = channels >> 2
                        while n:
                            if x[0] > p[0]:
                                p[0] = x[0]
                            if x[1] > p[1]:
                                p[1] = x[1]
                            if x[2] > p[2]:
                                p[2] = x[2]
                            if x[3] > p[3]:
                                p[3] = x[3]
                            p = ptr8(int(p) + 4)
                            x = ptr8(int(x) + 4)
                            n -= 1
                        n = channels & 3
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
            if high == 255:
                n = 0
            while n:
                if p[0] > high:
                    p[0] = high
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
                        n = channels >> 2
                        while n:
                            p[0] = p[0] + x[0]
                            p[1] = p[1] + x[1]
                            p[2] = p[2] + x[2]
                            p[3] = p[3] + x[3]
                            p = ptr32(int(p) + 16)
                            x = ptr8(int(x) + 4)
                            n -= 1
                        n = channels & 3
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
