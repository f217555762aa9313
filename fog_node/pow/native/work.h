/* One piece of work, a header and a target, and the search of a nonce range for it. */
#ifndef FOGLINE_POW_WORK_H
#define FOGLINE_POW_WORK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "sha256.h"

/* Everything about a header that does not depend on its nonce. The header's second SHA-256 block
 * starts with the words tail[0..2] and the nonce; the rest of it is padding. */
struct work {
    uint32_t header[HEADER_WORDS];   /* big-endian words; the nonce word is overwritten */
    uint32_t target[SHA256_WORDS];   /* most significant word first */
    uint32_t midstate[SHA256_WORDS]; /* after the first block */
    /* State after round 3 of the second block if the nonce word were 0: it is added to a and e. */
    uint32_t after3[SHA256_WORDS];
    uint32_t tail[3];
    uint32_t w16, w17;               /* schedule words that the nonce does not reach */
    uint32_t w18_base, w19_base;     /* w18 = base + small0(nonce word), w19 = base + nonce word */
};

/* Looks at nonces first..first+count-1 and returns the offset of the first one whose hash may meet
 * the target, judged by the hash's most significant word alone; count when there is none. */
typedef uint32_t scan_function(const struct work *work, uint32_t first, uint32_t count);

struct search_result {
    bool found;
    uint32_t nonce;  /* the lowest nonce of the range that meets the target */
    uint64_t hashes; /* nonces judged, the found one included */
};

/* header: 76 or more bytes as hashed. target: 32 bytes, least significant first, as a hash. */
void work_init(struct work *work, const unsigned char *header, const unsigned char *target);

/* Whether the double SHA-256 of the header with this nonce, as a little-endian number, is at most
 * the target. */
bool work_meets_target(const struct work *work, uint32_t nonce);

/* Searches first..first+count-1 (count at most 2**32 - first) until a nonce is found, the range is
 * done, or one of the two flags is set by another thread. batch: nonces between two looks at the
 * flags, which is all that is judged after one was set. */
struct search_result work_search(const struct work *work, scan_function *scan, uint32_t batch,
                                 uint32_t first, uint64_t count, const atomic_bool *cancel,
                                 const atomic_bool *stop);

#endif
