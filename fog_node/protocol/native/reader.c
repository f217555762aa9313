#include "reader.h"

#include <math.h>
#include <string.h>

enum {
    FLOAT_16 = 0xF9,
    FLOAT_32 = 0xFA,
    FLOAT_64 = 0xFB,
    SIMPLE_FALSE = 0xF4,
    SIMPLE_NULL = 0xF6,
    TAG_MAC0 = 17,
    TAG_SIGN1 = 18,
};

bool reader_take_bytes(struct reader *reader, struct span *bytes)
{
    return reader_take_string(reader, MAJOR_BYTES, bytes);
}

/* Length of the UTF-8 sequence at `at` (RFC 3629 section 4); 0 where there is none. */
static size_t utf8_sequence(const uint8_t *at, size_t left)
{
    if (at[0] < 0x80) {
        return 1;
    }
    size_t size = at[0] >= 0xF0 ? 4 : at[0] >= 0xE0 ? 3 : 2;
    if (at[0] < 0xC2 || at[0] > 0xF4 || left < size) {
        return 0;
    }
    for (size_t i = 1; i < size; i++) {
        if (at[i] >> 6 != 2) {
            return 0;
        }
    }
    /* Overlong forms, surrogates, and what is above U+10FFFF. */
    bool is_wrong = (at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xED && at[1] > 0x9F)
                    || (at[0] == 0xF0 && at[1] < 0x90) || (at[0] == 0xF4 && at[1] > 0x8F);
    return is_wrong ? 0 : size;
}

bool span_is_text(struct span span, size_t *characters)
{
    size_t count = 0;
    for (size_t i = 0; i < span.size; count++) {
        size_t size = utf8_sequence(span.bytes + i, span.size - i);
        if (size == 0) {
            return false;
        }
        i += size;
    }
    *characters = count;
    return true;
}

static const double HALF_MAX = 65504;
static const double HALF_MIN_NORMAL = 1.0 / (1 << 14);
static const double HALF_MIN = 1.0 / (1 << 24);
static const double SINGLE_MAX = 3.4028234663852886e38;

static double half_value(uint64_t bits)
{
    int exponent = bits >> 10 & 31;
    double mantissa = (double)(bits & 1023);
    double value = exponent == 0 ? mantissa * HALF_MIN
                                 : (mantissa + 1024) * HALF_MIN * (double)(1u << (exponent - 1));
    return bits >> 15 ? -value : value;
}

/* Whether a half holds a finite value exactly. */
static bool fits_half(double value)
{
    double magnitude = fabs(value);
    if (magnitude > HALF_MAX) {
        return false;
    }
    if (magnitude >= HALF_MIN_NORMAL) {
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        return (bits & ((1ull << 42) - 1)) == 0; /* 10 of the 52 bits of the mantissa */
    }
    double units = magnitude / HALF_MIN;
    return units == (double)(uint64_t)units;
}

static bool fits_single(double value)
{
    return fabs(value) <= SINGLE_MAX && (double)(float)value == value;
}

static bool take_float(struct reader *reader, double *value)
{
    uint64_t bits;
    int first = reader_peek(reader);
    if (first < FLOAT_16 || first > FLOAT_64) {
        return false;
    }
    reader->at++;
    if (first == FLOAT_16) {
        if (!reader_take_unsigned(reader, 2, &bits) || (bits >> 10 & 31) == 31) {
            return false;
        }
        *value = half_value(bits);
        return true;
    }
    if (first == FLOAT_32) {
        float single;
        if (!reader_take_unsigned(reader, 4, &bits)) {
            return false;
        }
        uint32_t bits_32 = (uint32_t)bits;
        memcpy(&single, &bits_32, sizeof single);
        *value = single;
        return isfinite(*value) && !fits_half(*value);
    }
    if (!reader_take_unsigned(reader, 8, &bits)) {
        return false;
    }
    memcpy(value, &bits, sizeof *value);
    return isfinite(*value) && !fits_single(*value);
}

/* -1 - n as the nearest double, rounded once. */
static double negative_value(uint64_t n)
{
    return n == UINT64_MAX ? -18446744073709551616.0 : -(double)(n + 1);
}

bool reader_take_number(struct reader *reader, struct number *number)
{
    int first = reader_peek(reader);
    if (first < 0) {
        return false;
    }
    int major = first >> 5;
    number->is_integer = major == MAJOR_UNSIGNED || major == MAJOR_NEGATIVE;
    number->is_unsigned = major == MAJOR_UNSIGNED;
    if (!number->is_integer) {
        return take_float(reader, &number->value);
    }
    if (!reader_take_head(reader, (enum major)major, &number->integer)) {
        return false;
    }
    number->value =
        number->is_unsigned ? (double)number->integer : negative_value(number->integer);
    return true;
}

static bool take_item(struct reader *reader, unsigned depth, size_t *left);

static bool take_items(struct reader *reader, uint64_t count, unsigned depth, size_t *left)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!take_item(reader, depth, left)) {
            return false;
        }
    }
    return true;
}

/* Whether a key is behind the last one, bytewise; the first one is behind nothing. */
static bool is_behind(struct span last, struct span key)
{
    size_t common = last.size < key.size ? last.size : key.size;
    int order = common ? memcmp(last.bytes, key.bytes, common) : 0;
    return order < 0 || (order == 0 && last.size < key.size);
}

static bool take_map(struct reader *reader, uint64_t count, unsigned depth, size_t *left)
{
    struct span last = {reader->at, 0};
    if (count > MAX_MAP_ENTRIES) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *start = reader->at;
        int first = reader_peek(reader);
        if (first < 0 || first >> 5 > MAJOR_TEXT || !take_item(reader, depth, left)) {
            return false;
        }
        struct span key = {start, (size_t)(reader->at - start)};
        if (!is_behind(last, key) || !take_item(reader, depth, left)) {
            return false;
        }
        last = key;
    }
    return true;
}

static bool take_item(struct reader *reader, unsigned depth, size_t *left)
{
    uint64_t argument;
    double value;
    struct span string;
    size_t characters;
    int first = reader_peek(reader);

    if (first < 0 || depth > MAX_DEPTH || *left == 0) {
        return false;
    }
    --*left;
    switch (first >> 5) {
    case MAJOR_UNSIGNED:
    case MAJOR_NEGATIVE:
        return reader_take_head(reader, (enum major)(first >> 5), &argument);
    case MAJOR_BYTES:
        return reader_take_string(reader, MAJOR_BYTES, &string);
    case MAJOR_TEXT:
        return reader_take_string(reader, MAJOR_TEXT, &string)
               && span_is_text(string, &characters);
    case MAJOR_ARRAY:
        return reader_take_head(reader, MAJOR_ARRAY, &argument)
               && take_items(reader, argument, depth + 1, left);
    case MAJOR_MAP:
        return reader_take_head(reader, MAJOR_MAP, &argument)
               && take_map(reader, argument, depth + 1, left);
    case MAJOR_TAG:
        return reader_take_head(reader, MAJOR_TAG, &argument)
               && (argument == TAG_MAC0 || argument == TAG_SIGN1)
               && take_item(reader, depth + 1, left);
    default:
        if (first >= SIMPLE_FALSE && first <= SIMPLE_NULL) {
            reader->at++;
            return true;
        }
        return take_float(reader, &value);
    }
}

bool cbor_is_deterministic(struct span span)
{
    struct reader reader = reader_of(span);
    size_t left = MAX_ITEMS;
    return take_item(&reader, 0, &left) && reader_is_done(&reader);
}

bool span_equals(struct span span, const char *text)
{
    return span.size == strlen(text) && memcmp(span.bytes, text, span.size) == 0;
}

bool span_starts_with(struct span span, const char *text)
{
    size_t size = strlen(text);
    return span.size >= size && memcmp(span.bytes, text, size) == 0;
}
