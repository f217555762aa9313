/* SHA-256 (FIPS 180-4), one block at a time, and its double over an 80-byte block header. */
#ifndef FOGLINE_POW_SHA256_H
#define FOGLINE_POW_SHA256_H

#include <stdint.h>

enum {
    SHA256_WORDS = 8,   /* words of a state or a digest */
    BLOCK_WORDS = 16,   /* words of a message block */
    HEADER_BYTES = 80,
    HEADER_WORDS = 20,
    NONCE_WORD = 19,    /* the header's last word */
};

/* Sections 5.3.3 and 4.2.2. Defined here, so that the kernels fold them into their operands. */
static const uint32_t sha256_initial[SHA256_WORDS] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static const uint32_t sha256_round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* The four functions and the choice and majority of FIPS 180-4, section 4.1.2. */
static inline uint32_t sha256_rotate(uint32_t x, unsigned n) { return (x >> n) | (x << (32 - n)); }

static inline uint32_t sha256_small0(uint32_t x)
{
    return sha256_rotate(x, 7) ^ sha256_rotate(x, 18) ^ (x >> 3);
}

static inline uint32_t sha256_small1(uint32_t x)
{
    return sha256_rotate(x, 17) ^ sha256_rotate(x, 19) ^ (x >> 10);
}

static inline uint32_t sha256_big0(uint32_t x)
{
    return sha256_rotate(x, 2) ^ sha256_rotate(x, 13) ^ sha256_rotate(x, 22);
}

static inline uint32_t sha256_big1(uint32_t x)
{
    return sha256_rotate(x, 6) ^ sha256_rotate(x, 11) ^ sha256_rotate(x, 25);
}

static inline uint32_t sha256_choose(uint32_t x, uint32_t y, uint32_t z)
{
    return z ^ (x & (y ^ z));
}

static inline uint32_t sha256_majority(uint32_t x, uint32_t y, uint32_t z)
{
    return (x & y) | (z & (x | y));
}

static inline uint32_t swap_bytes(uint32_t x)
{
    return (x >> 24) | ((x >> 8) & 0x0000FF00U) | ((x << 8) & 0x00FF0000U) | (x << 24);
}

/* Between bytes and the big-endian words that SHA-256 works on. */
void sha256_load(uint32_t *words, const unsigned char *bytes, int count);
void sha256_store(unsigned char *bytes, const uint32_t *words, int count);

/* Rounds first..last-1 of the compression function, without the final addition. */
void sha256_rounds(uint32_t state[SHA256_WORDS], const uint32_t schedule[64], int first, int last);

/* The 64 schedule words of one block. */
void sha256_expand(uint32_t schedule[64], const uint32_t block[BLOCK_WORDS]);

/* Adds one block to the state. */
void sha256_compress(uint32_t state[SHA256_WORDS], const uint32_t block[BLOCK_WORDS]);

/* Double SHA-256 of a header given as 20 big-endian words. */
void sha256_double_header(uint32_t digest[SHA256_WORDS], const uint32_t header[HEADER_WORDS]);

#endif
