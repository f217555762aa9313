#include "work.h"

#include <string.h>

void work_init(struct work *work, const unsigned char *header, const unsigned char *target)
{
    uint32_t reversed[SHA256_WORDS];

    sha256_load(work->header, header, NONCE_WORD);
    work->header[NONCE_WORD] = 0;
    sha256_load(reversed, target, SHA256_WORDS);
    for (int i = 0; i < SHA256_WORDS; i++) {
        work->target[i] = swap_bytes(reversed[SHA256_WORDS - 1 - i]);
    }

    memcpy(work->midstate, sha256_initial, sizeof sha256_initial);
    sha256_compress(work->midstate, work->header);

    uint32_t block[BLOCK_WORDS] = {work->header[16], work->header[17], work->header[18]};
    uint32_t schedule[64];
    block[4] = 0x80000000;
    block[15] = HEADER_BYTES * 8;
    sha256_expand(schedule, block);
    memcpy(work->tail, block, sizeof work->tail);
    memcpy(work->after3, work->midstate, sizeof work->midstate);
    sha256_rounds(work->after3, schedule, 0, 4);
    /* The block above has the nonce word 0, and small0(0) is 0. */
    work->w16 = schedule[16];
    work->w17 = schedule[17];
    work->w18_base = schedule[18];
    work->w19_base = schedule[19];
}

bool work_meets_target(const struct work *work, uint32_t nonce)
{
    uint32_t header[HEADER_WORDS];
    uint32_t digest[SHA256_WORDS];

    memcpy(header, work->header, sizeof header);
    header[NONCE_WORD] = swap_bytes(nonce);
    sha256_double_header(digest, header);
    for (int i = 0; i < SHA256_WORDS; i++) {
        uint32_t word = swap_bytes(digest[SHA256_WORDS - 1 - i]);
        if (word != work->target[i]) {
            return word < work->target[i];
        }
    }
    return true;
}

struct search_result work_search(const struct work *work, scan_function *scan, uint32_t batch,
                                 uint32_t first, uint64_t count, const atomic_bool *cancel,
                                 const atomic_bool *stop)
{
    uint64_t done = 0;

    while (done < count) {
        if (atomic_load_explicit(cancel, memory_order_relaxed)
            || atomic_load_explicit(stop, memory_order_relaxed)) {
            break;
        }
        uint32_t step = count - done < batch ? (uint32_t)(count - done) : batch;
        uint32_t from = first + (uint32_t)done;
        uint32_t offset = scan(work, from, step);
        if (offset == step) {
            done += step;
            continue;
        }
        done += (uint64_t)offset + 1;
        if (work_meets_target(work, from + offset)) {
            return (struct search_result){true, from + offset, done};
        }
    }
    return (struct search_result){false, 0, done};
}
