/* AVX-512 (its foundation set alone): sixteen nonces at a time. */
#include "kernels.h"

#if POW_X86_64

#include <immintrin.h>

enum { LANES = 16 };

#define VECTOR __m512i
#define VECTOR_FUNCTION __attribute__((target("avx512f")))
#define SET(x) _mm512_set1_epi32((int)(x))
#define ADD(x, y) _mm512_add_epi32(x, y)
/* A ternary operation is named by its truth table. */
#define XOR3(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0x96)
#define CHOOSE(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0xCA)
#define MAJORITY(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0xE8)
#define ROTATE(x, n) _mm512_ror_epi32(x, n)
#define SHIFT(x, n) _mm512_srli_epi32(x, n)
#define BIG0(x) XOR3(ROTATE(x, 2), ROTATE(x, 13), ROTATE(x, 22))
#define BIG1(x) XOR3(ROTATE(x, 6), ROTATE(x, 11), ROTATE(x, 25))
#define SMALL0(x) XOR3(ROTATE(x, 7), ROTATE(x, 18), SHIFT(x, 3))
#define SMALL1(x) XOR3(ROTATE(x, 17), ROTATE(x, 19), SHIFT(x, 10))
#define PIN(x) __asm__("" : "+v"(x))
#include "lanes.h"

bool avx512_runs_here(void) { return __builtin_cpu_supports("avx512f"); }

/* Without the byte shuffle of AVX-512BW: each rotation puts two of the four bytes in place. */
VECTOR_FUNCTION static __m512i swap_lane_bytes(__m512i x)
{
    return CHOOSE(SET(0x00FF00FF), ROTATE(x, 24), ROTATE(x, 8));
}

VECTOR_FUNCTION uint32_t avx512_scan(const struct work *work, uint32_t first, uint32_t count)
{
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i limit = SET(work->target[0]);
    struct shared shared;

    share(&shared, work);
    for (uint32_t offset = 0; offset < count; offset += LANES) {
        __m512i nonces = ADD(SET(first + offset), lane);
        __m512i words = swap_lane_bytes(last_words(&shared, swap_lane_bytes(nonces)));
        unsigned lanes = _mm512_cmple_epu32_mask(words, limit);
        if (lanes != 0) {
            uint32_t found = offset + (uint32_t)__builtin_ctz(lanes);
            /* Lanes beyond the range belong to somebody else. */
            return found < count ? found : count;
        }
    }
    return count;
}

#endif
