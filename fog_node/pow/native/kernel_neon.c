/* NEON (Advanced SIMD): four nonces at a time, on every aarch64 processor. */
#include "kernels.h"

#if POW_AARCH64

#include <arm_neon.h>
#include <sys/auxv.h>

enum { LANES = 4 };

#define VECTOR uint32x4_t
#define VECTOR_FUNCTION
#define SET(x) vdupq_n_u32(x)
#define ADD(x, y) vaddq_u32(x, y)
#define XOR3(x, y, z) veorq_u32(veorq_u32(x, y), z)
#define SHIFT(x, n) vshrq_n_u32(x, n)
/* A rotation in two instructions: one half shifted, the other shifted in beside it. */
#define ROTATE(x, n) vsriq_n_u32(vshlq_n_u32(x, 32 - (n)), x, n)
#define BIG0(x) XOR3(ROTATE(x, 2), ROTATE(x, 13), ROTATE(x, 22))
#define BIG1(x) XOR3(ROTATE(x, 6), ROTATE(x, 11), ROTATE(x, 25))
#define SMALL0(x) XOR3(ROTATE(x, 7), ROTATE(x, 18), SHIFT(x, 3))
#define SMALL1(x) XOR3(ROTATE(x, 17), ROTATE(x, 19), SHIFT(x, 10))
#define CHOOSE(x, y, z) vbslq_u32(x, y, z)
/* Where x and y differ, z decides. */
#define MAJORITY(x, y, z) vbslq_u32(veorq_u32(x, y), z, y)
#define PIN(x) __asm__("" : "+w"(x))
#include "lanes.h"

bool neon_runs_here(void) { return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0; }

static inline uint32x4_t swap_lane_bytes(uint32x4_t x)
{
    return vreinterpretq_u32_u8(vrev32q_u8(vreinterpretq_u8_u32(x)));
}

uint32_t neon_scan(const struct work *work, uint32_t first, uint32_t count)
{
    static const uint32_t numbers[LANES] = {0, 1, 2, 3};
    const uint32x4_t lane = vld1q_u32(numbers);
    const uint32x4_t limit = SET(work->target[0]);
    struct shared shared;

    share(&shared, work);
    for (uint32_t offset = 0; offset < count; offset += LANES) {
        uint32x4_t nonces = ADD(SET(first + offset), lane);
        uint32x4_t words = swap_lane_bytes(last_words(&shared, swap_lane_bytes(nonces)));
        /* Sixteen bits of ones per lane that may meet the target. */
        uint64_t lanes =
            vget_lane_u64(vreinterpret_u64_u16(vmovn_u32(vcleq_u32(words, limit))), 0);
        if (lanes != 0) {
            uint32_t found = offset + (uint32_t)__builtin_ctzll(lanes) / 16;
            /* Lanes beyond the range belong to somebody else. */
            return found < count ? found : count;
        }
    }
    return count;
}

#endif
