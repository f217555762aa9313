#include "envelope.h"

#include <string.h>

enum {
    ENVELOPE_TAG = 18,
    ALG_ES256 = 0x26,     /* -7 */
    LABEL_ALG = 0x01,
    LABEL_CONTENT_TYPE = 0x03,
    LABEL_KID = 0x04,
    LABELS = 5,
    PARTS = 4,
    EMPTY_MAP = 0xA0,
    SCALAR_BYTES = 32,
    DER_SEQUENCE = 0x30,
    DER_INTEGER = 0x02,
};

static const char CONTENT_TYPE[] = "application/senml+cbor";
static const uint64_t LABEL_SEQUENCE = 65536; /* -65537 */
static const uint64_t LABEL_DROPPED = 65537;  /* -65538 */
static const uint64_t MAX_SEQUENCE = INT64_MAX;

/* Order of the P-256 group (SEC 2 version 2, section 2.4.2), and half of it rounded down. */
static const uint8_t ORDER[SCALAR_BYTES] = {
    0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xBC, 0xE6, 0xFA, 0xAD, 0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
};
static const uint8_t HALF_ORDER[SCALAR_BYTES] = {
    0x7F, 0xFF, 0xFF, 0xFF, 0x80, 0x00, 0x00, 0x00, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,
    0xDE, 0x73, 0x7D, 0x56, 0xD3, 0x8B, 0xCF, 0x42, 0x79, 0xDC, 0xE5, 0x61, 0x7E, 0x31, 0x92, 0xA8,
};

static bool take_label(struct reader *reader, uint64_t expected)
{
    uint64_t label;
    return reader_take_head(reader, MAJOR_NEGATIVE, &label) && label == expected;
}

static bool take_count(struct reader *reader, uint64_t *count)
{
    return reader_take_head(reader, MAJOR_UNSIGNED, count) && *count <= MAX_SEQUENCE;
}

static bool read_protected(struct span bytes, struct envelope *envelope)
{
    struct reader reader = reader_of(bytes);
    struct span type;
    uint64_t count;

    return bytes.size <= MAX_PROTECTED_BYTES && reader_take_head(&reader, MAJOR_MAP, &count)
           && count == LABELS && reader_take_byte(&reader, LABEL_ALG)
           && reader_take_byte(&reader, ALG_ES256) && reader_take_byte(&reader, LABEL_CONTENT_TYPE)
           && reader_take_string(&reader, MAJOR_TEXT, &type) && span_equals(type, CONTENT_TYPE)
           && reader_take_byte(&reader, LABEL_KID) && reader_take_bytes(&reader, &envelope->kid)
           && envelope->kid.size == KID_BYTES && take_label(&reader, LABEL_SEQUENCE)
           && take_count(&reader, &envelope->sequence) && envelope->sequence > 0
           && take_label(&reader, LABEL_DROPPED) && take_count(&reader, &envelope->dropped)
           && reader_is_done(&reader);
}

bool envelope_read(struct span message, struct envelope *envelope)
{
    struct reader reader = reader_of(message);
    uint64_t tag, parts;

    return message.size <= MAX_TRANSACTION_BYTES && reader_take_head(&reader, MAJOR_TAG, &tag)
           && tag == ENVELOPE_TAG && reader_take_head(&reader, MAJOR_ARRAY, &parts) && parts == PARTS
           && reader_take_bytes(&reader, &envelope->protected)
           && reader_take_byte(&reader, EMPTY_MAP) && reader_take_bytes(&reader, &envelope->payload)
           && reader_take_bytes(&reader, &envelope->signature)
           && envelope->signature.size == SIGNATURE_BYTES && reader_is_done(&reader)
           && read_protected(envelope->protected, envelope);
}

/* A DER integer; returns its length. */
static size_t put_integer(const uint8_t scalar[SCALAR_BYTES], uint8_t *der)
{
    size_t skip = 0;
    while (skip < SCALAR_BYTES - 1 && scalar[skip] == 0) {
        skip++;
    }
    size_t pad = scalar[skip] >> 7; /* it would read as negative */
    size_t size = SCALAR_BYTES - skip;
    der[0] = DER_INTEGER;
    der[1] = (uint8_t)(pad + size);
    der[2] = 0;
    memcpy(der + 2 + pad, scalar + skip, size);
    return 2 + pad + size;
}

size_t signature_to_der(const uint8_t signature[SIGNATURE_BYTES], uint8_t der[MAX_DER_BYTES])
{
    static const uint8_t zero[SCALAR_BYTES];
    const uint8_t *r = signature, *s = signature + SCALAR_BYTES;
    if (memcmp(r, zero, SCALAR_BYTES) == 0 || memcmp(r, ORDER, SCALAR_BYTES) >= 0
        || memcmp(s, zero, SCALAR_BYTES) == 0 || memcmp(s, HALF_ORDER, SCALAR_BYTES) > 0) {
        return 0;
    }
    size_t size = put_integer(r, der + 2);
    size += put_integer(s, der + 2 + size);
    der[0] = DER_SEQUENCE;
    der[1] = (uint8_t)size;
    return 2 + size;
}
