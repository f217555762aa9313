/* The kernels this build has, fastest first, and whether this processor runs them. */
#ifndef FOGLINE_POW_KERNELS_H
#define FOGLINE_POW_KERNELS_H

#include "work.h"

#if defined(__x86_64__)
#define POW_X86_64 1
#else
#define POW_X86_64 0
#endif
/* Linux says what an ARM processor can; elsewhere, and with the bytes the other way, plain C serves. */
#if defined(__aarch64__) && defined(__linux__) && !defined(__AARCH64EB__)
#define POW_AARCH64 1
#else
#define POW_AARCH64 0
#endif

struct kernel {
    const char *name;
    bool (*runs_here)(void);
    scan_function *scan;
    uint32_t batch; /* nonces between two looks at the flags that stop a search */
};

/* Each batch takes 1 ms on the slowest machine in mind: a search that is stopped ends within 5 ms with
 * room to spare. The slowest are an x86-64 that makes 4 MH/s, a Raspberry Pi 5 at the same figure or
 * better, a Raspberry Pi 3 with NEON (1 MH/s), and plain C on the latter (0.5 MH/s). */
enum { FAST_BATCH = 4096, NEON_BATCH = 1024, PLAIN_BATCH = 512 };

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
#if POW_AARCH64
bool armv8_sha2_runs_here(void);
scan_function armv8_sha2_scan;
bool neon_runs_here(void);
scan_function neon_scan;
#endif
bool portable_runs_here(void);
scan_function portable_scan;

/* The kernel of that name if this processor runs it, else NULL. */
const struct kernel *kernel_find(const char *name);

#endif
