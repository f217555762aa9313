/* Double SHA-256 of several nonces at once, written once for every kernel that holds one nonce per
 * lane of a vector. The including file defines, before it includes this one:
 *
 *   VECTOR                      the vector type, lanes of 32 bits
 *   VECTOR_FUNCTION             what a function needs to use the instruction set, or empty
 *   SET(x)                      x in every lane
 *   ADD(x, y)                   per lane, modulo 2**32
 *   BIG0 BIG1 SMALL0 SMALL1(x)  the functions of FIPS 180-4, section 4.1.2
 *   CHOOSE MAJORITY(x, y, z)
 *   PIN(x)                      keeps the compiler from regrouping a sum across the variable x, or
 *                               nothing
 *
 * What saves work over two plain hashes: everything ahead of the nonce comes from struct work. The
 * round that takes in the first word that varies (the nonce, then the first word of the inner digest)
 * is two additions, as all else in it is fixed. Words known to be 0 are left out of the sums, and fixed
 * words and states are summed up with the round constants once per scan. As the digest's last word is
 * made of the e of round 60, nothing behind that is computed. */
#ifndef FOGLINE_POW_LANES_H
#define FOGLINE_POW_LANES_H

#include <string.h>

#include "work.h"

#define ADD3(x, y, z) ADD(ADD(x, y), z)
#define ADD4(x, y, z, u) ADD(ADD(x, y), ADD(z, u))

/* The end marks and bit lengths of SHA-256's padding, for 80 and for 32 bytes. */
enum { HEADER_BITS = HEADER_BYTES * 8, DIGEST_BITS = SHA256_WORDS * 32 };
#define END_MARK 0x80000000U

/* What all nonces share, in every lane and in memory: an operand that is read costs a vector unit
 * nothing, one made from an immediate does. */
struct shared {
    VECTOR outer[64]; /* keys: round constants plus what else is fixed, header's second block */
    VECTOR inner[64]; /* the same for the second hash */
    VECTOR after3[SHA256_WORDS];
    VECTOR midstate[SHA256_WORDS];
    VECTOR after0[SHA256_WORDS]; /* of the second hash, whose first word is still to be added */
    VECTOR w16, w17, w18_base, w19_base;
    VECTOR end_mark, header_bits, w30_base, w31_base;
    VECTOR digest_bits, small1_bits, small0_bits, small0_mark;
    VECTOR initial7;
};

VECTOR_FUNCTION static inline void share(struct shared *shared, const struct work *work)
{
    const uint32_t *k = sha256_round_constants;
    const uint32_t nothing[64] = {0};
    uint32_t after0[SHA256_WORDS];

    memcpy(after0, sha256_initial, sizeof after0);
    sha256_rounds(after0, nothing, 0, 1);
    for (int t = 0; t < 64; t++) {
        shared->outer[t] = SET(k[t]);
        shared->inner[t] = SET(k[t]);
    }
    for (int i = 0; i < SHA256_WORDS; i++) {
        shared->after3[i] = SET(work->after3[i]);
        shared->midstate[i] = SET(work->midstate[i]);
        shared->after0[i] = SET(after0[i]);
    }
    /* The h of rounds 4 to 6, and of 1 to 3, is as old as the fixed state. */
    shared->outer[4] = SET(k[4] + work->after3[7] + END_MARK);
    shared->outer[5] = SET(k[5] + work->after3[6]);
    shared->outer[6] = SET(k[6] + work->after3[5]);
    shared->outer[15] = SET(k[15] + HEADER_BITS);
    shared->outer[16] = SET(k[16] + work->w16);
    shared->outer[17] = SET(k[17] + work->w17);
    shared->inner[1] = SET(k[1] + after0[7]);
    shared->inner[2] = SET(k[2] + after0[6]);
    shared->inner[3] = SET(k[3] + after0[5]);
    shared->inner[8] = SET(k[8] + END_MARK);
    shared->inner[15] = SET(k[15] + DIGEST_BITS);

    shared->w16 = SET(work->w16);
    shared->w17 = SET(work->w17);
    shared->w18_base = SET(work->w18_base);
    shared->w19_base = SET(work->w19_base);
    shared->end_mark = SET(END_MARK);
    shared->header_bits = SET(HEADER_BITS);
    shared->w30_base = SET(sha256_small0(HEADER_BITS));
    shared->w31_base = SET(sha256_small0(work->w16) + HEADER_BITS);
    shared->digest_bits = SET(DIGEST_BITS);
    shared->small1_bits = SET(sha256_small1(DIGEST_BITS));
    shared->small0_bits = SET(sha256_small0(DIGEST_BITS));
    shared->small0_mark = SET(sha256_small0(END_MARK));
    shared->initial7 = SET(sha256_initial[7]);
}

/* Variable i of a..h in round t. Rounds rename the variables instead of moving them. */
#define STATE(t, i) state[((i) - (t)) & 7]

/* Round t; sum = h + round constant + schedule word. Summed up in the order in which the terms become
 * known, with the long way from e to e and from a to a the shortest. */
#define ROUND(t, sum)                                                                             \
    do {                                                                                          \
        VECTOR early = sum;                                                                       \
        PIN(early);                                                                               \
        early = ADD(early, CHOOSE(STATE(t, 4), STATE(t, 5), STATE(t, 6)));                        \
        PIN(early);                                                                               \
        VECTOR t1 = ADD(early, BIG1(STATE(t, 4)));                                                \
        PIN(t1);                                                                                  \
        VECTOR t1_major = ADD(t1, MAJORITY(STATE(t, 0), STATE(t, 1), STATE(t, 2)));               \
        PIN(t1_major);                                                                            \
        STATE(t, 3) = ADD(STATE(t, 3), t1);                                                       \
        STATE(t, 7) = ADD(t1_major, BIG0(STATE(t, 0)));                                           \
    } while (0)

/* Schedule word t. The last sixteen are kept. */
#define WORD(t) word[(t) & 15]

/* Rounds whose schedule word is the same for every nonce (FIXED) or is known already (GIVEN), or
 * whose h is fixed (BEGIN); and the general case, which makes its word (FULL). */
#define FIXED(t, key) ROUND(t, ADD(STATE(t, 7), key))
#define GIVEN(t, key) ROUND(t, ADD(STATE(t, 7), ADD(key, WORD(t))))
#define BEGIN(t, key) ROUND(t, key)
#define FULL(t, key)                                                                              \
    do {                                                                                          \
        VECTOR sum3 = ADD3(WORD(t), SMALL0(WORD((t) + 1)), WORD((t) + 9));                        \
        PIN(sum3);                                                                                \
        WORD(t) = ADD(sum3, SMALL1(WORD((t) + 14)));                                              \
        GIVEN(t, key);                                                                            \
    } while (0)
#define FULL4(t, keys)                                                                            \
    do {                                                                                          \
        FULL(t, (keys)[0]);                                                                       \
        FULL((t) + 1, (keys)[1]);                                                                 \
        FULL((t) + 2, (keys)[2]);                                                                 \
        FULL((t) + 3, (keys)[3]);                                                                 \
    } while (0)
/* Sixteen rounds, after which every variable has its name back: the body of a loop, since all rounds
 * written out no longer fit the caches of a processor's decoders. */
#define FULL16(keys)                                                                              \
    do {                                                                                          \
        FULL4(0, keys);                                                                           \
        FULL4(4, (keys) + 4);                                                                     \
        FULL4(8, (keys) + 8);                                                                     \
        FULL4(12, (keys) + 12);                                                                   \
    } while (0)

/* The last word of the double hash for each lane's nonce word (the nonce with its bytes swapped). */
VECTOR_FUNCTION static inline VECTOR last_words(const struct shared *shared, VECTOR nonce_words)
{
    const VECTOR *key = shared->outer;
    VECTOR state[8];
    VECTOR word[16];

    for (int i = 0; i < SHA256_WORDS; i++) {
        STATE(4, i) = shared->after3[i];
    }
    STATE(4, 0) = ADD(STATE(4, 0), nonce_words);
    STATE(4, 4) = ADD(STATE(4, 4), nonce_words);
    BEGIN(4, key[4]);
    BEGIN(5, key[5]);
    BEGIN(6, key[6]);
    FIXED(7, key[7]);
    FIXED(8, key[8]);
    FIXED(9, key[9]);
    FIXED(10, key[10]);
    FIXED(11, key[11]);
    FIXED(12, key[12]);
    FIXED(13, key[13]);
    FIXED(14, key[14]);
    FIXED(15, key[15]);
    WORD(16) = shared->w16;
    FIXED(16, key[16]);
    WORD(17) = shared->w17;
    FIXED(17, key[17]);
    WORD(18) = ADD(shared->w18_base, SMALL0(nonce_words));
    GIVEN(18, key[18]);
    WORD(19) = ADD(shared->w19_base, nonce_words);
    GIVEN(19, key[19]);
    WORD(20) = ADD(SMALL1(WORD(18)), shared->end_mark);
    GIVEN(20, key[20]);
    WORD(21) = SMALL1(WORD(19));
    GIVEN(21, key[21]);
    WORD(22) = ADD(SMALL1(WORD(20)), shared->header_bits);
    GIVEN(22, key[22]);
    WORD(23) = ADD(SMALL1(WORD(21)), WORD(16));
    GIVEN(23, key[23]);
    WORD(24) = ADD(SMALL1(WORD(22)), WORD(17));
    GIVEN(24, key[24]);
    WORD(25) = ADD(SMALL1(WORD(23)), WORD(18));
    GIVEN(25, key[25]);
    WORD(26) = ADD(SMALL1(WORD(24)), WORD(19));
    GIVEN(26, key[26]);
    WORD(27) = ADD(SMALL1(WORD(25)), WORD(20));
    GIVEN(27, key[27]);
    WORD(28) = ADD(SMALL1(WORD(26)), WORD(21));
    GIVEN(28, key[28]);
    WORD(29) = ADD(SMALL1(WORD(27)), WORD(22));
    GIVEN(29, key[29]);
    WORD(30) = ADD3(SMALL1(WORD(28)), WORD(23), shared->w30_base);
    GIVEN(30, key[30]);
    WORD(31) = ADD3(SMALL1(WORD(29)), WORD(24), shared->w31_base);
    GIVEN(31, key[31]);
    for (key += 32; key < shared->outer + 64; key += 16) {
        FULL16(key);
    }

    for (int i = 0; i < SHA256_WORDS; i++) {
        WORD(i) = ADD(shared->midstate[i], STATE(0, i));
    }
    for (int i = 0; i < SHA256_WORDS; i++) {
        STATE(1, i) = shared->after0[i];
    }
    key = shared->inner;
    STATE(1, 0) = ADD(STATE(1, 0), WORD(0));
    STATE(1, 4) = ADD(STATE(1, 4), WORD(0));
    BEGIN(1, ADD(key[1], WORD(1)));
    BEGIN(2, ADD(key[2], WORD(2)));
    BEGIN(3, ADD(key[3], WORD(3)));
    GIVEN(4, key[4]);
    GIVEN(5, key[5]);
    GIVEN(6, key[6]);
    GIVEN(7, key[7]);
    FIXED(8, key[8]);
    FIXED(9, key[9]);
    FIXED(10, key[10]);
    FIXED(11, key[11]);
    FIXED(12, key[12]);
    FIXED(13, key[13]);
    FIXED(14, key[14]);
    FIXED(15, key[15]);

    WORD(16) = ADD(SMALL0(WORD(1)), WORD(0));
    GIVEN(16, key[16]);
    WORD(17) = ADD3(shared->small1_bits, SMALL0(WORD(2)), WORD(1));
    GIVEN(17, key[17]);
    WORD(18) = ADD3(SMALL1(WORD(16)), SMALL0(WORD(3)), WORD(2));
    GIVEN(18, key[18]);
    WORD(19) = ADD3(SMALL1(WORD(17)), SMALL0(WORD(4)), WORD(3));
    GIVEN(19, key[19]);
    WORD(20) = ADD3(SMALL1(WORD(18)), SMALL0(WORD(5)), WORD(4));
    GIVEN(20, key[20]);
    WORD(21) = ADD3(SMALL1(WORD(19)), SMALL0(WORD(6)), WORD(5));
    GIVEN(21, key[21]);
    WORD(22) = ADD4(SMALL1(WORD(20)), shared->digest_bits, SMALL0(WORD(7)), WORD(6));
    GIVEN(22, key[22]);
    WORD(23) = ADD4(SMALL1(WORD(21)), WORD(16), shared->small0_mark, WORD(7));
    GIVEN(23, key[23]);
    WORD(24) = ADD3(SMALL1(WORD(22)), WORD(17), shared->end_mark);
    GIVEN(24, key[24]);
    WORD(25) = ADD(SMALL1(WORD(23)), WORD(18));
    GIVEN(25, key[25]);
    WORD(26) = ADD(SMALL1(WORD(24)), WORD(19));
    GIVEN(26, key[26]);
    WORD(27) = ADD(SMALL1(WORD(25)), WORD(20));
    GIVEN(27, key[27]);
    WORD(28) = ADD(SMALL1(WORD(26)), WORD(21));
    GIVEN(28, key[28]);
    WORD(29) = ADD(SMALL1(WORD(27)), WORD(22));
    GIVEN(29, key[29]);
    WORD(30) = ADD3(SMALL1(WORD(28)), WORD(23), shared->small0_bits);
    GIVEN(30, key[30]);
    WORD(31) = ADD4(SMALL1(WORD(29)), WORD(24), SMALL0(WORD(16)), shared->digest_bits);
    GIVEN(31, key[31]);
    for (key += 32; key < shared->inner + 48; key += 16) {
        FULL16(key);
    }
    FULL4(0, key);
    FULL4(4, key + 4);
    FULL4(8, key + 8);
    FULL(12, key[12]);
    return ADD(shared->initial7, STATE(13, 4));
}

#endif
