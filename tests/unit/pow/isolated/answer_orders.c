/* Reads orders, one a line: 76 bytes of header and 32 of target in hex, the first nonce, the count.
 * Answers each with a line per kernel of this processor: its name, the nonce or "none", the hashes. */
#include <inttypes.h>
#include <stdio.h>

#include "kernels.h"

enum { HEADER_PREFIX_BYTES = HEADER_BYTES - 4, TARGET_BYTES = 32 };

static bool parse_hex(unsigned char *bytes, const char *digits, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (sscanf(digits + 2 * i, "%2hhx", &bytes[i]) != 1) {
            return false;
        }
    }
    return true;
}

int main(void)
{
    char header_digits[2 * HEADER_PREFIX_BYTES + 1];
    char target_digits[2 * TARGET_BYTES + 1];
    uint32_t first;
    uint64_t count;

    while (scanf("%152s %64s %" SCNu32 " %" SCNu64, header_digits, target_digits, &first, &count)
           == 4) {
        unsigned char header[HEADER_PREFIX_BYTES];
        unsigned char target[TARGET_BYTES];
        atomic_bool never = false;
        struct work work;

        if (!parse_hex(header, header_digits, sizeof header)
            || !parse_hex(target, target_digits, sizeof target)) {
            return 1;
        }
        work_init(&work, header, target);
        for (const struct kernel *kernel = kernels; kernel->name != NULL; kernel++) {
            if (!kernel->runs_here()) {
                continue;
            }
            struct search_result result = work_search(&work, kernel->scan, kernel->batch, first,
                                                      count, &never, &never);
            printf("%s ", kernel->name);
            if (result.found) {
                printf("%" PRIu32, result.nonce);
            } else {
                printf("none");
            }
            printf(" %" PRIu64 "\n", result.hashes);
        }
    }
    return feof(stdin) ? 0 : 1;
}
