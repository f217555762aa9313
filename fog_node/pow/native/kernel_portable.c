/* Plain C: the lanes of lanes.h with one lane. */
#include "kernels.h"

#define VECTOR uint32_t
#define VECTOR_FUNCTION
#define SET(x) (x)
#define ADD(x, y) ((x) + (y))
#define BIG0(x) sha256_big0(x)
#define BIG1(x) sha256_big1(x)
#define SMALL0(x) sha256_small0(x)
#define SMALL1(x) sha256_small1(x)
#define CHOOSE(x, y, z) sha256_choose(x, y, z)
#define MAJORITY(x, y, z) sha256_majority(x, y, z)
#define PIN(x) (void)(x)
#include "lanes.h"

bool portable_runs_here(void) { return true; }

uint32_t portable_scan(const struct work *work, uint32_t first, uint32_t count)
{
    struct shared shared;

    share(&shared, work);
    for (uint32_t offset = 0; offset < count; offset++) {
        if (swap_bytes(last_words(&shared, swap_bytes(first + offset))) <= work->target[0]) {
            return offset;
        }
    }
    return count;
}
