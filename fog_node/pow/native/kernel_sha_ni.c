/* Intel SHA extensions: several nonces interleaved, as each sha256rnds2 waits for the one before it. */
#include "kernels.h"

#if POW_X86_64

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

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
struct shared {
    __m128i midstate_abef, midstate_cdgh;
    __m128i after3_abef, after3_cdgh; /* without the nonce */
    __m128i after0_abef, after0_cdgh; /* of the second hash, without its first word */
    __m128i words16, sum20, sum28;
};

SHA_FUNCTION static void share(struct shared *shared, const struct work *work)
{
    const uint32_t *mid = work->midstate;
    const uint32_t *after3 = work->after3;
    const uint32_t nothing[64] = {0};
    uint32_t after0[SHA256_WORDS];

    memcpy(after0, sha256_initial, sizeof after0);
    sha256_rounds(after0, nothing, 0, 1);
    shared->midstate_abef = WORDS(mid[5], mid[4], mid[1], mid[0]);
    shared->midstate_cdgh = WORDS(mid[7], mid[6], mid[3], mid[2]);
    shared->after3_abef = WORDS(after3[5], after3[4], after3[1], after3[0]);
    shared->after3_cdgh = WORDS(after3[7], after3[6], after3[3], after3[2]);
    shared->after0_abef = WORDS(after0[5], after0[4], after0[1], after0[0]);
    shared->after0_cdgh = WORDS(after0[7], after0[6], after0[3], after0[2]);
    shared->words16 = WORDS(work->w16, work->w17, work->w18_base, work->w19_base);
    /* Before sha256msg2, words 20..23 and 28..31 owe nothing to the nonce, but the shifted-in
     * words that next_words would add to the latter. */
    shared->sum20 = WORDS(END_MARK, 0, HEADER_BITS, work->w16);
    shared->sum28 = WORDS(0, 0, sha256_small0(HEADER_BITS), sha256_small0(work->w16) + HEADER_BITS);
}

/* The state after round 3, where the nonce enters by two additions, and words 16 to 31 of the header's
 * second block; words 5 to 14 are 0. */
SHA_FUNCTION static inline void first_hash(struct stream *s, const struct shared *shared,
                                           uint32_t nonce_word)
{
    __m128i nonce = _mm_cvtsi32_si128((int)nonce_word);
    uint64_t varies = (uint64_t)nonce_word << 32 | sha256_small0(nonce_word);

    s->abef = _mm_add_epi32(shared->after3_abef, _mm_shuffle_epi32(nonce, 0x11));
    s->cdgh = shared->after3_cdgh;
    s->m0 = _mm_add_epi32(shared->words16,
                          _mm_slli_si128(_mm_cvtsi64_si128((long long)varies), 8));
}

SHA_FUNCTION static inline void first_words(struct stream *s, const struct shared *shared)
{
    s->m1 = _mm_sha256msg2_epu32(shared->sum20, s->m0);
    s->m2 = _mm_sha256msg2_epu32(_mm_alignr_epi8(s->m1, s->m0, 4), s->m1);
    s->m3 = _mm_sha256msg2_epu32(_mm_add_epi32(shared->sum28, _mm_alignr_epi8(s->m2, s->m1, 4)),
                                 s->m2);
}

/* From the end of the first hash to the second after its round 0, into which the first word enters by
 * two additions. The words are held from 1 on, so that the rounds left are 60 and end with the last
 * one that counts. */
SHA_FUNCTION static inline void second_hash(struct stream *s, const struct shared *shared)
{
    __m128i abef = _mm_add_epi32(s->abef, shared->midstate_abef);
    __m128i cdgh = _mm_add_epi32(s->cdgh, shared->midstate_cdgh);
    __m128i words0 = _mm_shuffle_epi32(_mm_unpackhi_epi64(cdgh, abef), 0x1B);
    __m128i words4 = _mm_shuffle_epi32(_mm_unpacklo_epi64(cdgh, abef), 0x1B);
    /* Word 16 is word 0 + small0(word 1), and nothing else. */
    __m128i word16 = _mm_sha256msg1_epu32(words0, words0);

    s->m0 = _mm_alignr_epi8(words4, words0, 4);
    s->m1 = _mm_alignr_epi8(WORDS(END_MARK, 0, 0, 0), words4, 4);
    s->m2 = WORDS(0, 0, 0, 0);
    s->m3 = _mm_alignr_epi8(word16, WORDS(0, 0, 0, DIGEST_BITS), 4);
    s->abef = _mm_add_epi32(shared->after0_abef,
                            _mm_unpackhi_epi32(WORDS(0, 0, 0, 0), _mm_shuffle_epi32(abef, 0xFF)));
    s->cdgh = shared->after0_cdgh;
}

/* The most significant word of the hash, which is the last one with its bytes swapped: the e of round
 * 60 ends up as h. */
SHA_FUNCTION static inline uint32_t top_word(const struct stream *s)
{
    return swap_bytes(sha256_initial[7] + (uint32_t)_mm_extract_epi32(s->abef, 1));
}

SHA_FUNCTION uint32_t sha_ni_scan(const struct work *work, uint32_t first, uint32_t count)
{
    struct shared shared;
    struct stream streams[LANES];

    share(&shared, work);
    for (uint32_t offset = 0; offset < count; offset += LANES) {
        EACH(first_hash(s, &shared, swap_bytes(first + offset + (uint32_t)lane)));
        FIXED4(4, END_MARK, 0, 0, 0);
        FIXED4(8, 0, 0, 0, 0);
        FIXED4(12, 0, 0, 0, HEADER_BITS);
        GIVEN4(16, m0);
        EACH(first_words(s, &shared));
        GIVEN4(20, m1);
        GIVEN4(24, m2);
        GIVEN4(28, m3);
        FULL16(32);
        FULL16(48);

        EACH(second_hash(s, &shared));
        GIVEN4(1, m0);
        GIVEN4(5, m1);
        FIXED4(9, 0, 0, 0, 0);
        GIVEN4(13, m3);
        FULL4(17, m0, m1, m2, m3);
        FULL4(21, m1, m2, m3, m0);
        /* Words 9 to 12 and the small0 of words 10 to 13 are 0. */
        EACH(s->m2 = _mm_sha256msg2_epu32(_mm_alignr_epi8(s->m1, s->m0, 4), s->m1));
        GIVEN4(25, m2);
        FULL4(29, m3, m0, m1, m2);
        FULL16(33);
        FULL4(49, m0, m1, m2, m3);
        FULL4(53, m1, m2, m3, m0);
        FULL4(57, m2, m3, m0, m1);

        for (uint32_t lane = 0; lane < LANES && offset + lane < count; lane++) {
            if (top_word(&streams[lane]) <= work->target[0]) {
                return offset + lane;
            }
        }
    }
    return count;
}

#endif
