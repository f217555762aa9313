/* The COSE_Sign1 of a pack, as ../cose.py and ../transactions.py read it. */
#ifndef FOGLINE_ENVELOPE_H
#define FOGLINE_ENVELOPE_H

#include "reader.h"

enum {
    KID_BYTES = 8,
    SIGNATURE_BYTES = 64,
    MAX_TRANSACTION_BYTES = 24 * 1024,
    MAX_PROTECTED_BYTES = 256,
    /* Of two integers of 33 bytes, with their heads and the sequence's. */
    MAX_DER_BYTES = 2 + 2 * (2 + 33),
};

struct envelope {
    struct span protected;
    struct span kid;
    uint64_t sequence;
    uint64_t dropped;
    struct span payload;
    struct span signature;
};

/* Whether this is the envelope of a numbered pack; the payload is not looked into. */
bool envelope_read(struct span message, struct envelope *envelope);

/* The signature r||s in DER (RFC 3279 section 2.2.3), and its length; 0 unless r is from 1 to
 * n - 1 and s from 1 to (n - 1) / 2, n being the order of P-256. */
size_t signature_to_der(const uint8_t signature[SIGNATURE_BYTES], uint8_t der[MAX_DER_BYTES]);

#endif
