/* AVX2: eight nonces at a time. */
#include "kernels.h"

#if POW_X86_64

#include <immintrin.h>

enum { LANES = 8 };

#define VECTOR __m256i
#define VECTOR_FUNCTION __attribute__((target("avx2")))
#define SET(x) _mm256_set1_epi32((int)(x))
#define ADD(x, y) _mm256_add_epi32(x, y)
#define XOR(x, y) _mm256_xor_si256(x, y)
#define RIGHT(x, n) _mm256_srli_epi32(x, n)
#define LEFT(x, n) _mm256_slli_epi32(x, n)
/* Without a rotate instruction each function is three shifts to the right and two or three to the
 * left. Shifts of shifts leave but two values under way, where a sum of rotations has four: with
 * sixteen registers that is a quarter fewer moves to memory and back. */
#define RIGHT3(x, n, m, l) RIGHT(XOR(RIGHT(XOR(RIGHT(x, (l) - (m)), x), (m) - (n)), x), n)
#define LEFT2(x, n, m) LEFT(XOR(LEFT(x, (m) - (n)), x), n)
#define LEFT3(x, n, m, l) LEFT(XOR(LEFT(XOR(LEFT(x, (l) - (m)), x), (m) - (n)), x), n)
#define BIG0(x) XOR(RIGHT3(x, 2, 13, 22), LEFT3(x, 10, 19, 30))
#define BIG1(x) XOR(RIGHT3(x, 6, 11, 25), LEFT3(x, 7, 21, 26))
#define SMALL0(x) XOR(RIGHT3(x, 3, 7, 18), LEFT2(x, 14, 25))
#define SMALL1(x) XOR(RIGHT3(x, 10, 17, 19), LEFT2(x, 13, 15))
#define CHOOSE(x, y, z) XOR(z, _mm256_and_si256(x, XOR(y, z)))
/* In this form the first term of a round is the second of the next. */
#define MAJORITY(x, y, z) XOR(y, _mm256_and_si256(XOR(x, y), XOR(y, z)))
#define PIN(x) __asm__("" : "+x"(x))
#include "lanes.h"

bool avx2_runs_here(void) { return __builtin_cpu_supports("avx2"); }

VECTOR_FUNCTION static __m256i swap_lane_bytes(__m256i x)
{
    return _mm256_shuffle_epi8(x, _mm256_set_epi8(28, 29, 30, 31, 24, 25, 26, 27, 20, 21, 22, 23,
                                                  16, 17, 18, 19, 12, 13, 14, 15, 8, 9, 10, 11, 4,
                                                  5, 6, 7, 0, 1, 2, 3));
}

VECTOR_FUNCTION uint32_t avx2_scan(const struct work *work, uint32_t first, uint32_t count)
{
    const __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    const __m256i limit = SET(work->target[0]);
    struct shared shared;

    share(&shared, work);
    for (uint32_t offset = 0; offset < count; offset += LANES) {
        __m256i nonces = ADD(SET(first + offset), lane);
        __m256i words = swap_lane_bytes(last_words(&shared, swap_lane_bytes(nonces)));
        __m256i met = _mm256_cmpeq_epi32(_mm256_min_epu32(words, limit), words);
        unsigned lanes = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(met));
        if (lanes != 0) {
            uint32_t found = offset + (uint32_t)__builtin_ctz(lanes);
            /* Lanes beyond the range belong to somebody else. */
            return found < count ? found : count;
        }
    }
    return count;
}

#endif
