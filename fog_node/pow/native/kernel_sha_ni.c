/* Intel SHA extensions: several nonces interleaved, as each sha256rnds2 waits for the one before it. */
#include "kernels.h"

#if POW_X86_64

#include <cpuid.h>
#include <immintrin.h>

#define SHA_FUNCTION __attribute__((target("sha,sse4.1")))

/* sha256rnds2 takes 4 cycles and one starts every 2 on AMD Zen: two streams would do if nothing ever
 * stalled, and more than four no longer fit the registers and the reorder buffer. */
enum { LANES = 4 };

/* Four consecutive words, the first in the lowest lane. */
#define WORDS(a, b, c, d) _mm_set_epi32((int)(d), (int)(c), (int)(b), (int)(a))
/* Round constants t..t+3 plus the fixed schedule words. */
#define KEYS(t, a, b, c, d)                                                                       \
    WORDS(sha256_round_constants[t] + (a), sha256_round_constants[(t) + 1] + (b),                 \
          sha256_round_constants[(t) + 2] + (c), sha256_round_constants[(t) + 3] + (d))

#define END_MARK 0x80000000U
enum { HEADER_BITS = HEADER_BYTES * 8, DIGEST_BITS = SHA256_WORDS * 32 };

/* One hash under way, the state split as the instruction wants it. */
struct stream {
    __m128i abef, cdgh;
    __m128i m0, m1, m2, m3; /* the last sixteen schedule words */
};

bool sha_ni_runs_here(void)
{
    unsigned eax, ebx, ecx, edx;

    /* SHA: leaf 7, EBX bit 29 (Intel SDM, CPUID). */
    return __builtin_cpu_supports("sse4.1") && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)
           && (ebx >> 29 & 1) != 0;
}

/* Two rounds with the keys in the low half. The two state halves change places. */
SHA_FUNCTION static inline void two_rounds(struct stream *s, __m128i keys)
{
    __m128i next = _mm_sha256rnds2_epu32(s->cdgh, s->abef, keys);
    s->cdgh = s->abef;
    s->abef = next;
}

SHA_FUNCTION static inline void four_rounds(struct stream *s, __m128i keys)
{
    two_rounds(s, keys);
    two_rounds(s, _mm_unpackhi_epi64(keys, keys));
}

/* Schedule words t..t+3 out of words t-16..t-13 (w16) to t-4..t-1 (w4). */
SHA_FUNCTION static inline __m128i next_words(__m128i w16, __m128i w12, __m128i w8, __m128i w4)
{
    __m128i sum = _mm_add_epi32(_mm_sha256msg1_epu32(w16, w12), _mm_alignr_epi8(w4, w8, 4));
    return _mm_sha256msg2_epu32(sum, w4);
}

/* One statement for every stream s. */
#define EACH(statement)                                                                           \
    do {                                                                                          \
        for (int lane = 0; lane < LANES; lane++) {                                                \
            struct stream *s = &streams[lane];                                                    \
            statement;                                                                            \
        }                                                                                         \
    } while (0)

/* Rounds t..t+3 with keys that are the same for every nonce. */
#define FIXED4(t, a, b, c, d) EACH(four_rounds(s, KEYS(t, a, b, c, d)))

/* Rounds t..t+3 with schedule words that are known already. */
#define GIVEN4(t, words) EACH(four_rounds(s, _mm_add_epi32(s->words, KEYS(t, 0, 0, 0, 0))))

/* Rounds t..t+3, the general case: w16 becomes words t..t+3. */
#define FULL4(t, w16, w12, w8, w4)                                                                \
    EACH(s->w16 = next_words(s->w16, s->w12, s->w8, s->w4);                                       \
         four_rounds(s, _mm_add_epi32(s->w16, KEYS(t, 0, 0, 0, 0))))

#define FULL16(t)                                                                                 \
    do {                                                                                          \
        FULL4(t, m0, m1, m2, m3);                                                                 \
        FULL4((t) + 4, m1, m2, m3, m0);                                                           \
        FULL4((t) + 8, m2, m3, m0, m1);                                                           \
        FULL4((t) + 12, m3, m0, m1, m2);                                                          \
    } while (0)

/* What the streams share, made once for a scan. */
struct start {
    __m128i midstate_abef, midstate_cdgh;
    __m128i abef, cdgh; /* before round 2 */
    __m128i key2;       /* of rounds 2 and 3, without the nonce */
    __m128i words16, sum20, sum28;
};

SHA_FUNCTION static void start_init(struct start *start, const struct work *work)
{
    const uint32_t *mid = work->midstate;
    struct stream s;

    s.abef = start->midstate_abef = WORDS(mid[5], mid[4], mid[1], mid[0]);
    s.cdgh = start->midstate_cdgh = WORDS(mid[7], mid[6], mid[3], mid[2]);
    two_rounds(&s, KEYS(0, work->tail[0], work->tail[1], 0, 0));
    start->abef = s.abef;
    start->cdgh = s.cdgh;
    start->key2 = WORDS(sha256_round_constants[2] + work->tail[2], sha256_round_constants[3], 0, 0);
    start->words16 = WORDS(work->w16, work->w17, work->w18_base, work->w19_base);
    /* Before sha256msg2, words 20..23 and 28..31 owe nothing to the nonce, but the shifted-in
     * words that next_words would add to the latter. */
    start->sum20 = WORDS(END_MARK, 0, HEADER_BITS, work->w16);
    start->sum28 = WORDS(0, 0, sha256_small0(HEADER_BITS), sha256_small0(work->w16) + HEADER_BITS);
}

/* Rounds 2 and 3 and words 16 to 19: where the nonce enters. */
SHA_FUNCTION static inline void stream_init(struct stream *s, const struct start *start,
                                            uint32_t nonce_word)
{
    s->abef = start->abef;
    s->cdgh = start->cdgh;
    two_rounds(s, _mm_add_epi32(start->key2, WORDS(0, nonce_word, 0, 0)));
    s->m0 = _mm_add_epi32(start->words16, WORDS(0, 0, sha256_small0(nonce_word), nonce_word));
}

/* Words 20 to 31 of the header's second block; words 5 to 14 are 0. */
SHA_FUNCTION static inline void first_words(struct stream *s, const struct start *start)
{
    s->m1 = _mm_sha256msg2_epu32(start->sum20, s->m0);
    s->m2 = _mm_sha256msg2_epu32(_mm_alignr_epi8(s->m1, s->m0, 4), s->m1);
    s->m3 = _mm_sha256msg2_epu32(_mm_add_epi32(start->sum28, _mm_alignr_epi8(s->m2, s->m1, 4)),
                                 s->m2);
}

/* From the end of the first hash to the beginning of the second. */
SHA_FUNCTION static inline void second_hash(struct stream *s, const struct start *start)
{
    __m128i abef = _mm_add_epi32(s->abef, start->midstate_abef);
    __m128i cdgh = _mm_add_epi32(s->cdgh, start->midstate_cdgh);
    const uint32_t *iv = sha256_initial;

    s->m0 = _mm_shuffle_epi32(_mm_unpackhi_epi64(cdgh, abef), 0x1B);
    s->m1 = _mm_shuffle_epi32(_mm_unpacklo_epi64(cdgh, abef), 0x1B);
    s->m2 = WORDS(END_MARK, 0, 0, 0);
    s->m3 = WORDS(0, 0, 0, DIGEST_BITS);
    s->abef = WORDS(iv[5], iv[4], iv[1], iv[0]);
    s->cdgh = WORDS(iv[7], iv[6], iv[3], iv[2]);
}

/* The most significant word of the hash, which is the last one with its bytes swapped. After
 * round 61 the f of the state is the e of round 60, which ends up as h. */
SHA_FUNCTION static inline uint32_t top_word(const struct stream *s)
{
    return swap_bytes(sha256_initial[7] + (uint32_t)_mm_cvtsi128_si32(s->abef));
}

SHA_FUNCTION uint32_t sha_ni_scan(const struct work *work, uint32_t first, uint32_t count)
{
    struct start start;
    struct stream streams[LANES];

    start_init(&start, work);
    for (uint32_t offset = 0; offset < count; offset += LANES) {
        EACH(stream_init(s, &start, swap_bytes(first + offset + (uint32_t)lane)));
        FIXED4(4, END_MARK, 0, 0, 0);
        FIXED4(8, 0, 0, 0, 0);
        FIXED4(12, 0, 0, 0, HEADER_BITS);
        GIVEN4(16, m0);
        EACH(first_words(s, &start));
        GIVEN4(20, m1);
        GIVEN4(24, m2);
        GIVEN4(28, m3);
        FULL16(32);
        FULL16(48);

        EACH(second_hash(s, &start));
        GIVEN4(0, m0);
        GIVEN4(4, m1);
        FIXED4(8, END_MARK, 0, 0, 0);
        FIXED4(12, 0, 0, 0, DIGEST_BITS);
        FULL16(16);
        FULL16(32);
        FULL4(48, m0, m1, m2, m3);
        FULL4(52, m1, m2, m3, m0);
        FULL4(56, m2, m3, m0, m1);
        EACH(s->m3 = next_words(s->m3, s->m0, s->m1, s->m2);
             two_rounds(s, _mm_add_epi32(s->m3, KEYS(60, 0, 0, 0, 0))));

        for (uint32_t lane = 0; lane < LANES && offset + lane < count; lane++) {
            if (top_word(&streams[lane]) <= work->target[0]) {
                return offset + lane;
            }
        }
    }
    return count;
}

#endif
