/* Stands before the C library's getauxval (link with --wrap=getauxval) and says of the processor what
 * the environment's HWCAP, a number, says. QEMU has no model of a 64-bit ARM without the SHA-2
 * instructions; a Raspberry Pi 4 is one. */
#include <stdlib.h>
#include <sys/auxv.h>

unsigned long __real_getauxval(unsigned long type);
unsigned long __wrap_getauxval(unsigned long type);

unsigned long __wrap_getauxval(unsigned long type)
{
    const char *hwcap = getenv("HWCAP");
    return type == AT_HWCAP && hwcap != NULL ? strtoul(hwcap, NULL, 0) : __real_getauxval(type);
}
