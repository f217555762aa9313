"""The fixed-point arithmetic of TensorFlow Lite's int8 reference kernels, in Python integers.

It runs when a model is loaded, and must give the host's very numbers on boards whose floats
have single precision: so binary32 and binary64 are rounded here with integers alone.
A scale is a pair (m, e) that stands for m * 2**e.

Sources: "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (Jacob et al., 2018, section 2 and appendix B), and gemmlowp's fixed-point
functions, whose constants and roundings are part of the int8 operators' definition.
"""

from .errors import ModelError

_SINGLE_BITS = 24
_DOUBLE_BITS = 53
_ONE = (1 << 31) - 1  # 1.0 with no integer bits, as near as 32 bits allow


def scale_of(bits):
    """Return the (m, e) of a binary32's bits; only positive normal numbers are scales."""
    exponent = bits >> 23
    if not 0 < exponent < 255:
        raise ModelError("model.scale", "a scale is not a positive number")
    return bits & 0x7FFFFF | 0x800000, exponent - 150


def _bit_length(value):
    return len(bin(value)) - 2 if value else 0


def _rounded_quotient(numerator, denominator, bits):
    """Round a positive fraction to `bits` significant bits, ties to even: (mantissa, exponent)."""
    exponent = _bit_length(numerator) - _bit_length(denominator) - bits - 2
    if exponent < 0:
        numerator <<= -exponent
    else:
        denominator <<= exponent
    quotient, rest = divmod(numerator, denominator)
    drop = _bit_length(quotient) - bits
    half = 1 << (drop - 1)
    low = quotient & (2 * half - 1)
    quotient >>= drop
    if low > half or (low == half and (rest or quotient & 1)):
        quotient += 1
    return quotient, exponent + drop


def _scaled(value, exponent):
    """Return floor(2 * value * 2**exponent): twice, so that halves can be told."""
    exponent += 1
    return value << exponent if exponent >= 0 else value >> -exponent


def multiplier(numerator, denominator):
    """Return (m, s) with m * 2**(s - 31) for the quotient of two scales, as binary64 gives it.

    m has 31 bits, s is in -31 to 30. Both arguments are (m, e) pairs.
    """
    mantissa, exponent = _rounded_quotient(numerator[0], denominator[0], _DOUBLE_BITS)
    exponent += numerator[1] - denominator[1]
    m = (mantissa + (1 << 21)) >> 22
    shift = exponent + _DOUBLE_BITS
    while m >= 1 << 31:
        m >>= 1
        shift += 1
    if not -31 <= shift <= 30:
        raise ModelError("model.scale", "scales of one operator are too far apart")
    return m, shift


def product(a, b, single=False):
    """Return the product of two scales; `single` rounds it to binary32."""
    mantissa, exponent = a[0] * b[0], a[1] + b[1]
    if single:
        mantissa, more = _rounded_quotient(mantissa, 1, _SINGLE_BITS)
        exponent += more
    return mantissa, exponent


def _divide_by_power(value, exponent):
    """Round value / 2**exponent to nearest, ties away from zero."""
    if exponent == 0:
        return value
    half = 1 << (exponent - 1)
    return (value + half) >> exponent if value >= 0 else (value + half - 1) >> exponent


def _high_multiply(a, b):
    """Round 2 * a * b / 2**32 to nearest: the product of two fixed-point numbers."""
    return (a * b + (1 << 30)) >> 31


def multiply(value, factor):
    """Return `value` times the `factor` (m, s) of `multiplier`, with its two roundings."""
    m, shift = factor
    if shift > 0:
        return _high_multiply(value << shift, m)
    return _divide_by_power(_high_multiply(value, m), -shift)


def activation_range(kind, scale, zero_point):
    """Return the (lowest, highest) int8 that a fused activation lets through.

    `kind` is the schema's number: 0 none, 1 RELU, 2 RELU_N1_TO_1, 3 RELU6.
    """
    lowest, highest = -128, 127
    if kind == 2:
        lowest = max(lowest, zero_point - quantized(1, scale))
        highest = min(highest, zero_point + quantized(1, scale))
    elif kind in (1, 3):
        lowest = max(lowest, zero_point)
        if kind == 3:
            highest = min(highest, zero_point + quantized(6, scale))
    elif kind:
        raise ModelError("model.activation", "fused activation %d" % kind)
    if lowest > highest:
        raise ModelError("model.activation", "an empty range")
    return lowest, highest


def quantized(number, scale):
    """Round the whole `number` / `scale`, divided in binary32, to the nearest integer."""
    mantissa, exponent = _rounded_quotient(number, scale[0], _SINGLE_BITS)
    value = (_scaled(mantissa, exponent - scale[1]) + 1) >> 1
    if value >> 31:  # refused by the reference as well
        raise ModelError("model.scale", "a scale is too small for a fused activation")
    return value


def quantized_float(bits, scale):
    """Return the binary32 `bits` / `scale`, divided in binary32 and rounded to an integer.

    Halves go away from zero. What is out of range is cut to 31 bits; no number gives the lowest.
    """
    exponent = bits >> 23 & 255
    mantissa = bits & 0x7FFFFF
    negative = bits >> 31
    if exponent == 255:
        return -(1 << 31) if negative or mantissa else _ONE
    if exponent:
        mantissa |= 0x800000
    else:
        exponent = 1
    if not mantissa:
        return 0
    mantissa, more = _rounded_quotient(mantissa, scale[0], _SINGLE_BITS)
    exponent += more - 150 - scale[1]
    value = _ONE if exponent > 7 else (_scaled(mantissa, exponent) + 1) >> 1
    return -value if negative else value


def float_of(number, scale):
    """Return the bits of the binary32 nearest to the whole `number` * `scale`."""
    if not number:
        return 0
    mantissa, exponent = _rounded_quotient(abs(number) * scale[0], 1, _SINGLE_BITS)
    exponent += scale[1] + 150
    if exponent > 254:
        raise ModelError("model.scale", "a scale is too large for float32")
    # Scales are normal, so this is.
    bits = exponent << 23 | mantissa & 0x7FFFFF
    return bits | 1 << 31 if number < 0 else bits


def nearest_index(at, size, wanted, align_corners, half_pixel_centers):
    """Return the source index (0 to `size` - 1) of place `at` among `wanted`, in binary32."""
    if align_corners and wanted > 1:
        size_in, size_out = size - 1, wanted - 1
    else:
        size_in, size_out = size, wanted
    twice = 2 * at + 1 if half_pixel_centers else 2 * at
    if size_in == 0 or twice == 0:
        return 0
    scale, exponent = _rounded_quotient(size_in, size_out, _SINGLE_BITS)
    scale, more = _rounded_quotient(twice * scale, 2, _SINGLE_BITS)
    doubled = _scaled(scale, exponent + more)
    return min((doubled + 1 if align_corners else doubled) >> 1, size - 1)


def _exp_of_negative(a, integer_bits):
    """Return e**a in Q0.31 for a fixed-point a <= 0 with `integer_bits`, at most 5."""
    if a == 0:
        return _ONE
    fraction = 31 - integer_bits
    quarter = 1 << (fraction - 2)
    part = (a & (quarter - 1)) - quarter
    # Taylor series around -1/8 on [-1/4, 0).
    x = (part << integer_bits) + (1 << 28)
    x2 = _high_multiply(x, x)
    x3 = _high_multiply(x2, x)
    x4 = _divide_by_power(_high_multiply(x2, x2), 2)
    tail = _divide_by_power(_high_multiply(x4 + x3, 715827883) + x2, 1)
    result = 1895147668 + _high_multiply(1895147668, x + tail)
    # The whole quarters: multiply by e**-(2**i) for each bit of what is left.
    left = part - a
    bit = quarter
    for factor in (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242):
        if bit >> 31:
            break
        if left & bit:
            result = _high_multiply(result, factor)
        bit <<= 1
    return result


def _newton_quotient(a):
    """Return x = 2 / (1 + a) in Q2.29 for a in Q0.31 between 0 and 1."""
    half = (a + _ONE + 1) >> 1
    x = 1515870810 + _high_multiply(half, -1010580540)
    for _ in range(3):
        rest = (1 << 29) - _high_multiply(half, x)
        x += _high_multiply(x, rest) << 2
    return x


def _saturated(value):
    return min(max(value, -(1 << 31)), _ONE)


def _logistic(a):
    """Return 1 / (1 + e**-a) in Q0.31 for a in Q4.27."""
    if a == 0:
        return 1 << 30
    # 2 / (1 + e) in Q2.29 is 1 / (1 + e) in Q1.30.
    positive = _saturated(_newton_quotient(_exp_of_negative(-abs(a), 4)) << 1)
    return positive if a > 0 else _ONE - positive


def _tanh(a):
    """Return the hyperbolic tangent in Q0.31 for a in Q4.27."""
    if a == 0:
        return 0
    # The argument doubles by being read with one more integer bit.
    size = _saturated((_newton_quotient(_exp_of_negative(-abs(a), 5)) - (1 << 29)) << 2)
    return size if a > 0 else -size


def _squashed(q, zero_point, scale, function, drop, offset):
    """One int8 through `function`: `drop` fraction bits fall away, then `offset` is added."""
    mantissa, exponent = scale
    shift = exponent + 27 + _SINGLE_BITS  # scale * 2**27 = m * 2**(shift - 31)
    if shift < 0:
        raise ModelError("model.scale", "the input's scale is too small for an activation")
    radius = (15 << 27) >> shift  # from there on the result is at its limit
    centred = q - zero_point
    if centred <= -radius:
        return -128
    if centred >= radius:
        return 127
    raw = function(multiply(centred, (mantissa << (31 - _SINGLE_BITS), shift)))
    return min(max(_divide_by_power(raw, drop) + offset, -128), 127)


def logistic_q(q, zero_point, scale):
    """Return the int8 LOGISTIC of int8 `q`; the output has scale 1/256 and zero point -128."""
    return _squashed(q, zero_point, scale, _logistic, 23, -128)


def tanh_q(q, zero_point, scale):
    """Return the int8 TANH of int8 `q`; the output has scale 1/128 and zero point 0."""
    return _squashed(q, zero_point, scale, _tanh, 24, 0)


def softmax_factor(beta, scale):
    """Return the (m, shift) that brings an int8 difference to Q5.26; `beta`: a binary32's bits."""
    mantissa, exponent = product(scale_of(beta), scale)
    if _scaled(mantissa, exponent + 26) >> 31:
        return _ONE, 31  # one step down is too far already
    factor = multiplier((mantissa, exponent + 26), (1, 0))
    if factor[1] < 1:
        raise ModelError("model.scale", "the input's scale is too small for SOFTMAX")
    return factor


def softmax_exp(difference, factor):
    """Return e**x in Q0.31 for an int8 difference <= 0, or -1 where it is too far down."""
    if difference < -((31 << 26) >> factor[1]):
        return -1
    return _exp_of_negative(multiply(difference, factor), 5)


def softmax_share(exps):
    """Return (1 / the sum in Q0.31, shift) for the values of `softmax_exp` of one row."""
    total = 0
    for value in exps:
        if value >= 0:
            total += _divide_by_power(value, 12)
    headroom = 32 - _bit_length(total)
    fraction = (total << headroom) - (1 << 31)
    return _saturated(_newton_quotient(fraction) << 1), 12 - headroom + 23


def softmax_q(value, share, shift):
    """Return the int8 SOFTMAX; the output has scale 1/256 and zero point -128."""
    if value < 0:
        return -128
    return min(max(_divide_by_power(_high_multiply(share, value), shift) - 128, -128), 127)
