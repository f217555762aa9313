/* Holds every kernel of this processor against plain double SHA-256 over ranges of all alignments,
 * stops each in the midst of a search, and prints the names of those that passed. Needs no Python. */
#include <stdio.h>
#include <string.h>

#include "kernels.h"

enum { HEADERS = 20, LONGEST = 70, BATCHES_BEFORE_STOP = 3 };

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

static bool finds_what_plain_code_finds(const struct kernel *kernel)
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
            struct search_result fast = work_search(&work, kernel->scan, kernel->batch, first,
                                                    count, &never, &never);
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

/* A scan that counts what is asked of the kernel, and sets a flag in the midst of one batch. */
static const struct kernel *watched;
static atomic_bool flags[2];
static int flag_to_set;
static unsigned scans;
static uint32_t longest_scan;

static uint32_t watching_scan(const struct work *work, uint32_t first, uint32_t count)
{
    scans++;
    longest_scan = count > longest_scan ? count : longest_scan;
    if (scans == BATCHES_BEFORE_STOP) {
        atomic_store(&flags[flag_to_set], true);
    }
    return watched->scan(work, first, count);
}

static bool ends_with_the_batch_in_which_it_is_stopped(const struct kernel *kernel)
{
    const unsigned char header[76] = {0};
    const unsigned char no_hash[32] = {0};
    struct work work;

    work_init(&work, header, no_hash);
    watched = kernel;
    for (flag_to_set = 0; flag_to_set < 2; flag_to_set++) {
        atomic_store(&flags[0], false);
        atomic_store(&flags[1], false);
        scans = 0;
        longest_scan = 0;
        struct search_result result = work_search(&work, watching_scan, kernel->batch, 0,
                                                  UINT64_C(1) << 32, &flags[0], &flags[1]);
        if (result.found || scans != BATCHES_BEFORE_STOP || longest_scan != kernel->batch
            || result.hashes != (uint64_t)BATCHES_BEFORE_STOP * kernel->batch) {
            fprintf(stderr, "%s: went on for %u batches\n", kernel->name, scans);
            return false;
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
        if (!finds_what_plain_code_finds(kernel)
            || !ends_with_the_batch_in_which_it_is_stopped(kernel)) {
            return 1;
        }
        puts(kernel->name);
    }
    return 0;
}
