#include "sha256.h"

#include <string.h>

void sha256_load(uint32_t *words, const unsigned char *bytes, int count)
{
    for (int i = 0; i < count; i++, bytes += 4) {
        words[i] = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8
                   | bytes[3];
    }
}

void sha256_store(unsigned char *bytes, const uint32_t *words, int count)
{
    for (int i = 0; i < count; i++, bytes += 4) {
        bytes[0] = (unsigned char)(words[i] >> 24);
        bytes[1] = (unsigned char)(words[i] >> 16);
        bytes[2] = (unsigned char)(words[i] >> 8);
        bytes[3] = (unsigned char)words[i];
    }
}

void sha256_rounds(uint32_t state[SHA256_WORDS], const uint32_t schedule[64], int first, int last)
{
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

    for (int t = first; t < last; t++) {
        uint32_t t1 = h + sha256_big1(e) + sha256_choose(e, f, g) + sha256_round_constants[t]
                      + schedule[t];
        uint32_t t2 = sha256_big0(a) + sha256_majority(a, b, c);
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    state[0] = a;
    state[1] = b;
    state[2] = c;
    state[3] = d;
    state[4] = e;
    state[5] = f;
    state[6] = g;
    state[7] = h;
}

void sha256_expand(uint32_t schedule[64], const uint32_t block[BLOCK_WORDS])
{
    memcpy(schedule, block, BLOCK_WORDS * sizeof *block);
    for (int t = BLOCK_WORDS; t < 64; t++) {
        schedule[t] = sha256_small1(schedule[t - 2]) + schedule[t - 7]
                      + sha256_small0(schedule[t - 15]) + schedule[t - 16];
    }
}

void sha256_compress(uint32_t state[SHA256_WORDS], const uint32_t block[BLOCK_WORDS])
{
    uint32_t schedule[64];
    uint32_t next[SHA256_WORDS];

    sha256_expand(schedule, block);
    memcpy(next, state, sizeof next);
    sha256_rounds(next, schedule, 0, 64);
    for (int i = 0; i < SHA256_WORDS; i++) {
        state[i] += next[i];
    }
}

void sha256_double_header(uint32_t digest[SHA256_WORDS], const uint32_t header[HEADER_WORDS])
{
    uint32_t tail[BLOCK_WORDS] = {header[16], header[17], header[18], header[19], 0x80000000};
    uint32_t second[BLOCK_WORDS] = {0};

    tail[15] = HEADER_BYTES * 8;
    memcpy(second, sha256_initial, sizeof sha256_initial);
    sha256_compress(second, header);
    sha256_compress(second, tail);

    second[SHA256_WORDS] = 0x80000000;
    second[15] = SHA256_WORDS * 32;
    memcpy(digest, sha256_initial, sizeof sha256_initial);
    sha256_compress(digest, second);
}
