"""The inner loop of RESIZE_NEAREST_NEIGHBOR, in viper."""

from micropython import const

# Words of a windowed kernel's block, as in `kernels`.
_X = const(0)
_OUT = const(1)
_YMAP = const(5)
_XMAP = const(6)
_ROWS = const(7)
_COLS = const(8)
_WIDTH = const(11)
_CIN = const(12)


@micropython.viper
def pick(p: ptr8, x: ptr8, arg: ptr32):
    """Copy all channels of the one place that each output reads; see `kernels.window_block`.

    `p` and `x` are both the arena.
    """
    arena = int(p)
    p = ptr8(arena + arg[_OUT])
    ymap = arena + arg[_YMAP]
    channels = arg[_CIN]
    rows = arg[_ROWS]
    while rows:
        row = arena + arg[_X] + ptr16(ymap)[0] * arg[_WIDTH] * channels
        xmap = arena + arg[_XMAP]
        cols = arg[_COLS]
        while cols:
            x = ptr8(row + ptr16(xmap)[0] * channels)
            n = channels
            while n > 3:
                p[0] = x[0]
                p[1] = x[1]
                p[2] = x[2]
                p[3] = x[3]
                p = ptr8(int(p) + 4)
                x = ptr8(int(x) + 4)
                n -= 4
            while n:
                p[0] = x[0]
                p = ptr8(int(p) + 1)
                x = ptr8(int(x) + 1)
                n -= 1
            xmap += 2
            cols -= 1
        ymap += 2
        rows -= 1
