/* The kernels this build has, fastest first, and whether this processor runs them. */
#ifndef FOGLINE_POW_KERNELS_H
#define FOGLINE_POW_KERNELS_H

#include "work.h"

#if defined(__x86_64__)
#define POW_X86_64 1
#else
#define POW_X86_64 0
#endif

struct kernel {
    const char *name;
    bool (*runs_here)(void);
    scan_function *scan;
};

/* Ends with a kernel whose name is NULL. */
extern const struct kernel kernels[];

#if POW_X86_64
bool avx512_runs_here(void);
scan_function avx512_scan;
bool sha_ni_runs_here(void);
scan_function sha_ni_scan;
bool avx2_runs_here(void);
scan_function avx2_scan;
#endif
bool portable_runs_here(void);
scan_function portable_scan;

/* The kernel of that name if this processor runs it, else NULL. */
const struct kernel *kernel_find(const char *name);

#endif
