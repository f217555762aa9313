/* Reads deterministic CBOR (RFC 8949 section 4.2.1) item by item, within bounds. Each function
 * returns false for what is not there in its one right encoding; the place is then undefined. */
#ifndef FOGLINE_READER_H
#define FOGLINE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum major {
    MAJOR_UNSIGNED = 0,
    MAJOR_NEGATIVE = 1,
    MAJOR_BYTES = 2,
    MAJOR_TEXT = 3,
    MAJOR_ARRAY = 4,
    MAJOR_MAP = 5,
    MAJOR_TAG = 6,
};

/* The limits of ../cbor.py. */
enum { MAX_DEPTH = 16, MAX_ITEMS = 1 << 17, MAX_MAP_ENTRIES = 128 };

/* Below the first one, a head's low bits are the argument; up to the last, they say how many bytes
 * it takes: 1, 2, 4 or 8. */
enum { SHORT_ARGUMENT = 24, LONGEST_ARGUMENT = 27 };

struct span {
    const uint8_t *bytes;
    size_t size;
};

struct reader {
    const uint8_t *at;
    const uint8_t *end;
};

/* An integer or a float. `is_unsigned`: a non-negative integer, also in `integer`. */
struct number {
    double value;
    uint64_t integer;
    bool is_integer;
    bool is_unsigned;
};

static inline struct reader reader_of(struct span span)
{
    return (struct reader){span.bytes, span.bytes + span.size};
}

static inline bool reader_is_done(const struct reader *reader)
{
    return reader->at == reader->end;
}

/* The next byte without taking it; -1 at the end. */
static inline int reader_peek(const struct reader *reader)
{
    return reader_is_done(reader) ? -1 : *reader->at;
}

/* Take this byte, if it is the next one. */
static inline bool reader_take_byte(struct reader *reader, uint8_t byte)
{
    if (reader_peek(reader) != byte) {
        return false;
    }
    reader->at++;
    return true;
}

/* A big-endian unsigned integer of `size` bytes. */
static inline bool reader_take_unsigned(struct reader *reader, size_t size, uint64_t *value)
{
    if ((size_t)(reader->end - reader->at) < size) {
        return false;
    }
    *value = 0;
    for (size_t i = 0; i < size; i++) {
        *value = *value << 8 | reader->at[i];
    }
    reader->at += size;
    return true;
}

static inline bool reader_take_argument(struct reader *reader, uint8_t info, uint64_t *argument)
{
    if (info < SHORT_ARGUMENT) {
        *argument = info;
        return true;
    }
    if (info > LONGEST_ARGUMENT) {
        return false; /* reserved, or of indefinite length */
    }
    unsigned power = info - SHORT_ARGUMENT;
    if (!reader_take_unsigned(reader, (size_t)1 << power, argument)) {
        return false;
    }
    /* The shortest form: more than what the next shorter one can hold. */
    return power == 0 ? *argument >= SHORT_ARGUMENT : *argument >> (4u << power) != 0;
}

/* The head of an item of this major type, not of indefinite length. */
static inline bool reader_take_head(struct reader *reader, enum major major, uint64_t *argument)
{
    int first = reader_peek(reader);
    if (first < 0 || first >> 5 != (int)major) {
        return false;
    }
    reader->at++;
    return reader_take_argument(reader, first & 31, argument);
}

/* A byte string, or a text string; whether that is UTF-8 is not looked at. */
static inline bool reader_take_string(struct reader *reader, enum major major, struct span *string)
{
    uint64_t size;
    if (!reader_take_head(reader, major, &size) || size > (size_t)(reader->end - reader->at)) {
        return false;
    }
    *string = (struct span){reader->at, (size_t)size};
    reader->at += size;
    return true;
}

bool reader_take_bytes(struct reader *reader, struct span *bytes);

/* An integer of 64 bits and a sign, or a finite float. */
bool reader_take_number(struct reader *reader, struct number *number);

/* Whether this is one item in its only right encoding, with nothing behind it. It is strict beyond
 * need: what no structure of ours has (floats that are not finite, undefined, keys that are neither
 * integers nor strings) it takes for wrong, and its caller looks again. */
bool cbor_is_deterministic(struct span span);

/* Whether the bytes are UTF-8, of how many characters. */
bool span_is_text(struct span span, size_t *characters);

bool span_equals(struct span span, const char *text);
bool span_starts_with(struct span span, const char *text);

#endif
