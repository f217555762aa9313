#include "kernels.h"

#include <string.h>

const struct kernel kernels[] = {
#if POW_X86_64
    {"avx512", avx512_runs_here, avx512_scan},
    {"sha_ni", sha_ni_runs_here, sha_ni_scan},
    {"avx2", avx2_runs_here, avx2_scan},
#endif
    {"portable", portable_runs_here, portable_scan},
    {NULL, NULL, NULL},
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
