"""The inner loop of the weighted operators, in viper; `kernels_planes` and others are like it.

Activations lie in the arena as unsigned bytes q + 128, because viper loads bytes unsigned, and so
do weights, in a copy of their own. A sum of (w + 128) * a is too large by 128 * sum(a), which is
taken off once per output position.

viper's integers are the machine's words: 32 bits on boards, 64 on a desktop, where a 32-bit
load is not sign-extended either. So sums are left to run over and cut to 32 bits with
`<< wrap >> wrap`, wrap being the bits a word has beyond 32. Both give the same bytes.

The first two locals live in registers, so each kernel's hottest ones come first. In an expression
the right operand may be such a local as it is, a left one is moved first: `w[0] * p[0] + acc` takes
two instructions less than `acc + w[0] * p[0]`.

Requantizing a 32-bit sum by m * 2**(shift - 31) needs the top of a 64-bit product, which is put
together of 16-bit halves. Rounding to nearest twice, halves away from zero in the second, is
    (sum * m + 2**30 - (2**31 if sum < 0 else 0) + half * 2**32) >> (31 + right)
for a shift of `right` bits to the right, half = 2**(right - 2). A table has for each channel its
bias, m, half and right - 1. Where `right` is less than 2, which is rare, half is 0, and the fourth
word has `right` and the shift to the left. Results are cut to int8: see `kernels_ops.limited`.
"""

from micropython import const

# As in `kernels`: viper knows the constants of its own module only.
_NO_TAP = const(0x8000)  # in a map: this tap of the window lies outside the input
_LEFT_SHIFT = const(8)  # in a table's fourth word
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
_WRAP = const(18)


@micropython.viper
def windows(acc: int, p: ptr32, w: ptr8, arg: ptr32):
    """Sum weighted windows over all input channels: CONV_2D and its relatives.

    `p` is the arena, `w` the weights + 128 [cout][kh][kw][cin], `acc` is not read. Per output
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
                    if (iy | ix) & _NO_TAP:
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
                        acc = w[0] * p[0] + acc
                        acc = w[1] * p[1] + acc
                        acc = w[2] * p[2] + acc
                        acc = w[3] * p[3] + acc
                        acc = w[4] * p[4] + acc
                        acc = w[5] * p[5] + acc
                        acc = w[6] * p[6] + acc
                        acc = w[7] * p[7] + acc
                        w = ptr8(int(w) + 8)
                        p = ptr32(int(p) + 32)
                        n -= 8
                    at += 8
                p = ptr32(table)
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
                row += stride
                table += 16
                channels -= 1
            xmap += kw << 1
            cols -= 1
        ymap += kh << 1
        rows -= 1
