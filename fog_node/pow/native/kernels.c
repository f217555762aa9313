#include "kernels.h"

#include <string.h>

const struct kernel kernels[] = {
#if POW_X86_64
    {"avx512", avx512_runs_here, avx512_scan, FAST_BATCH},
    {"sha_ni", sha_ni_runs_here, sha_ni_scan, FAST_BATCH},
    {"avx2", avx2_runs_here, avx2_scan, FAST_BATCH},
#endif
#if POW_AARCH64
    {"armv8_sha2", armv8_sha2_runs_here, armv8_sha2_scan, FAST_BATCH},
    {"neon", neon_runs_here, neon_scan, NEON_BATCH},
#endif
    {"portable", portable_runs_here, portable_scan, PLAIN_BATCH},
    {NULL, NULL, NULL, 0},
};

const struct kernel *kernel_find(const char *name)
{
    for (const struct kernel *kernel = kernels; kernel->name != NULL; kernel++) {
        if (strcmp(kernel->name, name) == 0 && kernel->runs_here()) {
            return kernel;
        }
    }
    return NULL;
}
