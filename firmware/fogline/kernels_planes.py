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
# Behind the block of `depthwise`: bytes from column to column in the input, from window to window
# in a strip, and the runs of columns that make one, (how many, the first or NO_TAP), to a 0.
_PACE = const(19)
_STEP = const(20)
_STRIP = const(21)
_SLOW = const(1 << 29)  # in a table's fourth word


@micropython.viper
def depthwise(acc: int, p: ptr32, w: ptr32, arg: ptr32):
    """Sum weighted windows channel by channel: DEPTHWISE_CONV_2D.

    `p` is the arena, `w` the weights as words [cout][kw][kh], `acc` is not read. Every input
    channel makes cout / cin outputs. The table and what stands behind the block are of
    `ops_planes`. For each row of the output, the columns that its windows read are laid into a
    strip of words [column][kh], each of four channels (of one, where there are less than four).
    So the taps of a window stand at fixed places, those outside the input too: they hold its zero
    point, whose share of each sum is in the bias.
    """
    arena = int(p)
    weights = int(w)
    source = arena + arg[_X]
    out = arena + arg[_OUT]
    ymap = arena + arg[_YMAP]
    kh = arg[_KH]
    column = kh << 2  # bytes of a strip's
    taps = kh * arg[_KW]
    nine = taps == 9
    threes = taps // 3
    cin = arg[_CIN]
    cout = arg[_COUT]
    zo = arg[_ZO]
    wrap = arg[_WRAP]
    pace = arg[_PACE]
    step = arg[_STEP]
    outputs = arg[_COLS] * cout
    group = 4 if cin > 3 else 1
    rows = arg[_ROWS]
    while rows:
        row = weights
        table = arena + arg[_TABLE]
        to = out - cout
        channel = 0
        while channel < cin:
            done = 0  # of a group, by the one before
            if channel + group > cin:
                done = channel + group - cin
            strip = arena + arg[_SUMS]
            yk = ymap
            ky = kh
            while ky:
                p = ptr32(strip)
                run = int(arg) + (_STRIP << 2)
                while ptr32(run)[0]:
                    n = ptr32(run)[0]
                    if (ptr16(yk)[0] | ptr32(run)[1]) & _NO_TAP:
                        while n:
                            p[0] = arg[_ZX] * 0x1010101
                            p = ptr32(int(p) + column)
                            n -= 1
                    acc = source + (ptr16(yk)[0] * arg[_WIDTH] + ptr32(run)[1]) * cin
                    acc += channel - done
                    if cin & 3:  # else words are where words may be
                        while n:
                            ptr8(p)[0] = ptr8(acc)[0]
                            if group == 4:
                                ptr8(p)[1] = ptr8(acc)[1]
                                ptr8(p)[2] = ptr8(acc)[2]
                                ptr8(p)[3] = ptr8(acc)[3]
                            p = ptr32(int(p) + column)
                            acc += pace
                            n -= 1
                    while n:
                        p[0] = ptr32(acc)[0]
                        p = ptr32(int(p) + column)
                        acc += pace
                        n -= 1
                    run += 8
                strip += 4
                yk += 2
                ky -= 1
            # From the last window to the first: one number counts them and places their outputs.
            strip = arena + arg[_SUMS] + (arg[_COLS] - 1) * step + done
            lanes = group - done
            while lanes:
                fan = cout // cin
                while fan:
                    bias = ptr32(table)[0]
                    high = ptr16(table)[2]
                    middle = ptr16(table)[3]
                    low = ptr16(table)[4]
                    shift = ptr16(table)[5]
                    half = ptr32(table)[3]
                    slow = half & _SLOW
                    if slow:
                        low = ptr32(table)[2]
                        shift = ptr16(table)[6]
                    w = ptr32(row)
                    p = ptr32(strip)
                    n = outputs
                    while n:
                        acc = bias
                        if nine:
                            acc = w[0] * ptr8(p)[0] + acc
                            acc = w[1] * ptr8(p)[4] + acc
                            acc = w[2] * ptr8(p)[8] + acc
                            acc = w[3] * ptr8(p)[12] + acc
                            acc = w[4] * ptr8(p)[16] + acc
                            acc = w[5] * ptr8(p)[20] + acc
                            acc = w[6] * ptr8(p)[24] + acc
                            acc = w[7] * ptr8(p)[28] + acc
                            acc = w[8] * ptr8(p)[32] + acc
                        else:
                            k = threes
                            while k:
                                acc = w[0] * ptr8(p)[0] + acc
                                acc = w[1] * ptr8(p)[4] + acc
                                acc = w[2] * ptr8(p)[8] + acc
                                p = ptr32(int(p) + 12)
                                w = ptr32(int(w) + 12)
                                k -= 1
                            k = taps - threes * 3
                            while k:
                                acc = w[0] * ptr8(p)[0] + acc
                                p = ptr32(int(p) + 4)
                                w = ptr32(int(w) + 4)
                                k -= 1
                            p = ptr32(int(p) - (taps << 2))
                            w = ptr32(row)
                        p = ptr32(int(p) - step)
                        if wrap:
                            acc = (acc << wrap) >> wrap
                        if slow:
                            if not low:
                                acc = (acc << ((shift >> _LEFT_SHIFT) + wrap)) >> wrap
                            k = acc & 65535
                            acc >>= 16
                            t = int(uint(k * high) >> 16) + acc * high
                            k = k * middle + (t & 65535)
                            t = (t >> 16) + acc * middle
                            if low:
                                acc = t + (k + ((acc >> 15 | 1) << 14) >> 16) + low >> shift
                            else:
                                acc = (t << 1) + (k + 16384 >> 15)
                                if shift & 1:
                                    acc = (acc + (acc >> 31) + 1) >> 1
                        else:
                            acc = (
                                acc * high
                                + (acc * middle + (acc * low >> 10) >> 11)
                                + ((acc >> 31) << 10)
                                + half
                                >> shift
                            )
                        acc += zo
                        if acc >> 8:
                            acc = ~(acc >> 31)
                        ptr8(to)[n] = acc
                        n -= cout
                    to += 1
                    table += 16
                    row += taps << 2
                    fan -= 1
                strip += 1
                lanes -= 1
            channel += group - done
        out += outputs
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
