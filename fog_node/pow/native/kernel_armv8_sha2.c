/* The SHA-2 instructions of ARMv8: two nonces interleaved, as each sha256h waits for the one before. */
#include "kernels.h"

#if POW_AARCH64

#include <arm_neon.h>
#include <sys/auxv.h>

#define SHA_FUNCTION __attribute__((target("+crypto")))

/* Four rounds are two instructions of the SHA unit that take some cycles each and can start at once,
 * the four schedule words for them two more: two streams are enough to keep the unit busy. */
enum { LANES = 2 };

/* Four consecutive words, the first in the lowest lane, and the round constants t..t+3. */
#define WORDS(a, b, c, d) ((uint32x4_t){a, b, c, d})
#define CONSTANTS(t) vld1q_u32(sha256_round_constants + (t))

#define END_MARK 0x80000000U
enum { HEADER_BITS = HEADER_BYTES * 8, DIGEST_BITS = SHA256_WORDS * 32 };

/* One hash under way. */
struct stream {
    uint32x4_t abcd, efgh;
    uint32x4_t m0, m1, m2, m3; /* the last sixteen schedule words */
};

/* What the streams share, made once for a scan. */
struct shared {
    uint32x4_t after3_abcd, after3_efgh, midstate_abcd, midstate_efgh, initial_abcd, initial_efgh;
    uint32x4_t key4, key12;                /* the first hash's rounds 4 to 7 and 12 to 15 */
    uint32x4_t words12, words16;           /* its schedule words, 16 to 19 without the nonce */
    uint32x4_t sum20, sum28;               /* what sha256su0 would make for its words 20 and 28 */
    uint32x4_t inner8, inner12;            /* the second hash's words 8 to 15 */
    uint32x4_t inner_key8, inner_key12, inner_sum24;
};

bool armv8_sha2_runs_here(void) { return (getauxval(AT_HWCAP) & HWCAP_SHA2) != 0; }

SHA_FUNCTION static inline void four_rounds(struct stream *s, uint32x4_t keys)
{
    uint32x4_t abcd = s->abcd;

    s->abcd = vsha256hq_u32(abcd, s->efgh, keys);
    s->efgh = vsha256h2q_u32(s->efgh, abcd, keys);
}

/* Schedule words t..t+3 out of words t-16..t-13 (w16) to t-4..t-1 (w4). */
SHA_FUNCTION static inline uint32x4_t next_words(uint32x4_t w16, uint32x4_t w12, uint32x4_t w8,
                                                 uint32x4_t w4)
{
    return vsha256su1q_u32(vsha256su0q_u32(w16, w12), w8, w4);
}

/* One statement for every stream s. */
#define EACH(statement)                                                                           \
    do {                                                                                          \
        for (int lane = 0; lane < LANES; lane++) {                                                \
            struct stream *s = &streams[lane];                                                    \
            statement;                                                                            \
        }                                                                                         \
    } while (0)

/* Rounds t..t+3 with keys that are the same for every nonce (FIXED4), with schedule words that are
 * known already (GIVEN4), and the general case: w16 becomes words t..t+3 (FULL4). */
#define FIXED4(keys) EACH(four_rounds(s, keys))
#define GIVEN4(t, words) EACH(four_rounds(s, vaddq_u32(s->words, CONSTANTS(t))))
#define FULL4(t, w16, w12, w8, w4)                                                                \
    EACH(s->w16 = next_words(s->w16, s->w12, s->w8, s->w4);                                       \
         four_rounds(s, vaddq_u32(s->w16, CONSTANTS(t))))
#define FULL16(t)                                                                                 \
    do {                                                                                          \
        FULL4(t, m0, m1, m2, m3);                                                                 \
        FULL4((t) + 4, m1, m2, m3, m0);                                                           \
        FULL4((t) + 8, m2, m3, m0, m1);                                                           \
        FULL4((t) + 12, m3, m0, m1, m2);                                                          \
    } while (0)

SHA_FUNCTION static void share(struct shared *shared, const struct work *work)
{
    const uint32x4_t words4 = WORDS(END_MARK, 0, 0, 0);
    const uint32x4_t words8 = WORDS(0, 0, 0, 0);

    shared->after3_abcd = vld1q_u32(work->after3);
    shared->after3_efgh = vld1q_u32(work->after3 + 4);
    shared->midstate_abcd = vld1q_u32(work->midstate);
    shared->midstate_efgh = vld1q_u32(work->midstate + 4);
    shared->initial_abcd = vld1q_u32(sha256_initial);
    shared->initial_efgh = vld1q_u32(sha256_initial + 4);

    shared->words12 = WORDS(0, 0, 0, HEADER_BITS);
    shared->words16 = WORDS(work->w16, work->w17, work->w18_base, work->w19_base);
    shared->key4 = vaddq_u32(CONSTANTS(4), words4);
    shared->key12 = vaddq_u32(CONSTANTS(12), shared->words12);
    shared->sum20 = vsha256su0q_u32(words4, words8);
    shared->sum28 = vsha256su0q_u32(shared->words12, shared->words16);

    shared->inner8 = WORDS(END_MARK, 0, 0, 0);
    shared->inner12 = WORDS(0, 0, 0, DIGEST_BITS);
    shared->inner_key8 = vaddq_u32(CONSTANTS(8), shared->inner8);
    shared->inner_key12 = vaddq_u32(CONSTANTS(12), shared->inner12);
    shared->inner_sum24 = vsha256su0q_u32(shared->inner8, shared->inner12);
}

/* The state after round 3, where the nonce enters by two additions, and words 16 to 31; words 5 to
 * 14 are 0. */
SHA_FUNCTION static inline void stream_init(struct stream *s, const struct shared *shared,
                                            uint32_t nonce_word)
{
    uint32x4_t nonce = vsetq_lane_u32(nonce_word, vdupq_n_u32(0), 0);
    uint64_t varies = (uint64_t)nonce_word << 32 | sha256_small0(nonce_word);

    s->abcd = vaddq_u32(shared->after3_abcd, nonce);
    s->efgh = vaddq_u32(shared->after3_efgh, nonce);
    s->m0 = vaddq_u32(shared->words16,
                      vreinterpretq_u32_u64(vsetq_lane_u64(varies, vdupq_n_u64(0), 1)));
    s->m1 = vsha256su1q_u32(shared->sum20, shared->words12, s->m0);
    s->m2 = vsha256su1q_u32(vdupq_n_u32(0), s->m0, s->m1);
    s->m3 = vsha256su1q_u32(shared->sum28, s->m1, s->m2);
}

/* From the end of the first hash to the beginning of the second. */
SHA_FUNCTION static inline void second_hash(struct stream *s, const struct shared *shared)
{
    s->m0 = vaddq_u32(s->abcd, shared->midstate_abcd);
    s->m1 = vaddq_u32(s->efgh, shared->midstate_efgh);
    s->m2 = shared->inner8;
    s->m3 = shared->inner12;
    s->abcd = shared->initial_abcd;
    s->efgh = shared->initial_efgh;
}

SHA_FUNCTION uint32_t armv8_sha2_scan(const struct work *work, uint32_t first, uint32_t count)
{
    struct shared shared;
    struct stream streams[LANES];

    share(&shared, work);
    for (uint32_t offset = 0; offset < count; offset += LANES) {
        EACH(stream_init(s, &shared, swap_bytes(first + offset + (uint32_t)lane)));
        FIXED4(shared.key4);
        FIXED4(CONSTANTS(8));
        FIXED4(shared.key12);
        GIVEN4(16, m0);
        GIVEN4(20, m1);
        GIVEN4(24, m2);
        GIVEN4(28, m3);
        FULL16(32);
        FULL16(48);

        EACH(second_hash(s, &shared));
        GIVEN4(0, m0);
        GIVEN4(4, m1);
        FIXED4(shared.inner_key8);
        FIXED4(shared.inner_key12);
        FULL4(16, m0, m1, m2, m3);
        FULL4(20, m1, m2, m3, m0);
        EACH(s->m2 = vsha256su1q_u32(shared.inner_sum24, s->m0, s->m1));
        GIVEN4(24, m2);
        FULL4(28, m3, m0, m1, m2);
        FULL16(32);
        FULL4(48, m0, m1, m2, m3);
        FULL4(52, m1, m2, m3, m0);
        FULL4(56, m2, m3, m0, m1);
        /* Of rounds 60 to 63 only the e of round 60 counts, which ends up as h. */
        EACH(s->m3 = next_words(s->m3, s->m0, s->m1, s->m2);
             s->efgh = vsha256h2q_u32(s->efgh, s->abcd, vaddq_u32(s->m3, CONSTANTS(60))));

        for (uint32_t lane = 0; lane < LANES && offset + lane < count; lane++) {
            uint32_t last = sha256_initial[7] + vgetq_lane_u32(streams[lane].efgh, 3);
            if (swap_bytes(last) <= work->target[0]) {
                return offset + lane;
            }
        }
    }
    return count;
}

#endif
