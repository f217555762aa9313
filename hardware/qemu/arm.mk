include boards/MPS2_AN385/mpconfigboard.mk
include fogline.mk
SRC_C += mps2_an385.c
LDSCRIPT = mps2_an385.ld
