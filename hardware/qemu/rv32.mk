include boards/VIRT_RV32/mpconfigboard.mk
include fogline.mk
SRC_C += virt_rv32.c
LDSCRIPT = virt_rv32.ld
