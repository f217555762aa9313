/* Holds every kernel of this processor against plain double SHA-256 over ranges of all alignments,
 * and prints the names of those that passed. Built with the address and undefined-behaviour
 * sanitizers. */
#include <stdio.h>
#include <string.h>

#include "kernels.h"

enum { HEADERS = 20, LONGEST = 70 };

static uint32_t next_random(uint32_t *state)
{
    /* xorshift32: the same headers in every run. */
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static struct search_result search_plainly(const struct work *work, uint32_t first, uint64_t count)
{
    for (uint64_t offset = 0; offset < count; offset++) {
        if (work_meets_target(work, first + (uint32_t)offset)) {
            return (struct search_result){true, first + (uint32_t)offset, offset + 1};
        }
    }
    return (struct search_result){false, 0, count};
}

static bool check(const struct kernel *kernel)
{
    uint32_t random = 20090103;
    atomic_bool never = false;

    for (int i = 0; i < HEADERS; i++) {
        unsigned char header[76];
        unsigned char target[32];
        struct work work;

        for (size_t k = 0; k < sizeof header; k++) {
            header[k] = (unsigned char)next_random(&random);
        }
        memset(target, 0xFF, sizeof target);
        target[31] = (unsigned char)(1 << i % 8);
        work_init(&work, header, target);
        for (uint64_t count = 0; count < LONGEST; count++) {
            uint32_t first = next_random(&random) >> 1;
            struct search_result plain = search_plainly(&work, first, count);
            struct search_result fast =
                work_search(&work, kernel->scan, first, count, &never, &never);
            if (plain.found != fast.found || plain.nonce != fast.nonce
                || plain.hashes != fast.hashes) {
                fprintf(stderr, "%s: header %d, nonces %lu and %lu on\n", kernel->name, i,
                        (unsigned long)first, (unsigned long)count);
                return false;
            }
        }
    }
    return true;
}

int main(void)
{
    for (const struct kernel *kernel = kernels; kernel->name != NULL; kernel++) {
        if (!kernel->runs_here()) {
            continue;
        }
        if (!check(kernel)) {
            return 1;
        }
        puts(kernel->name);
    }
    return 0;
}
