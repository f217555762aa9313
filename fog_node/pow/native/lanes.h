/* Double SHA-256 of several nonces at once, written once for every kernel that holds one nonce per
 * lane of a vector. The including file defines, before it includes this one:
 *
 *   VECTOR                      the vector type, lanes of 32 bits
 *   VECTOR_FUNCTION             what a function needs to use the instruction set, or empty
 *   SET(x)                      x in every lane
 *   ADD(x, y)                   per lane, modulo 2**32
 *   BIG0 BIG1 SMALL0 SMALL1(x)  the functions of FIPS 180-4, section 4.1.2
 *   CHOOSE MAJORITY(x, y, z)
 *
 * What saves work over two plain hashes: the midstate, rounds 0 to 2 and the schedule words that the
 * nonce does not reach come from struct work; words known to be 0 are left out of the sums; and as
 * the digest's last word is made of the e of round 60, nothing behind that is computed. */
#ifndef FOGLINE_POW_LANES_H
#define FOGLINE_POW_LANES_H

#include "work.h"

#define ADD3(x, y, z) ADD(ADD(x, y), z)
#define ADD4(x, y, z, u) ADD(ADD(x, y), ADD(z, u))

/* Variable i of a..h in round t. Rounds rename the variables instead of moving them. */
#define STATE(t, i) state[((i) - (t)) & 7]

/* Round t, key = round constant + schedule word. Summed so that between the e of one round and that
 * of the next stand BIG1 and one addition: vector instructions take two cycles on AMD Zen 5. */
#define ROUND(t, key)                                                                             \
    do {                                                                                          \
        VECTOR early = ADD3(STATE(t, 7), key, CHOOSE(STATE(t, 4), STATE(t, 5), STATE(t, 6)));     \
        VECTOR big1 = BIG1(STATE(t, 4));                                                          \
        VECTOR major = MAJORITY(STATE(t, 0), STATE(t, 1), STATE(t, 2));                           \
        STATE(t, 3) = ADD(ADD(STATE(t, 3), early), big1);                                         \
        STATE(t, 7) = ADD(ADD(ADD(early, big1), major), BIG0(STATE(t, 0)));                       \
    } while (0)

/* Schedule word t. The last sixteen are kept. */
#define WORD(t) word[(t) & 15]

/* Rounds whose schedule word is the same for every nonce (FIXED) or is known already (GIVEN); and
 * the general case, which makes its word (FULL). */
#define FIXED(t, value) ROUND(t, SET(sha256_round_constants[t] + (value)))
#define GIVEN(t) ROUND(t, ADD(SET(sha256_round_constants[t]), WORD(t)))
#define FULL(t)                                                                                   \
    do {                                                                                          \
        VECTOR sum = ADD3(WORD(t), SMALL0(WORD((t) - 15)), WORD((t) - 7));                        \
        WORD(t) = ADD(sum, SMALL1(WORD((t) - 2)));                                                \
        GIVEN(t);                                                                                 \
    } while (0)
#define FULL4(t)                                                                                  \
    do {                                                                                          \
        FULL(t);                                                                                  \
        FULL((t) + 1);                                                                            \
        FULL((t) + 2);                                                                            \
        FULL((t) + 3);                                                                            \
    } while (0)

/* The end marks and bit lengths of SHA-256's padding, for 80 and for 32 bytes. */
enum { HEADER_BITS = HEADER_BYTES * 8, DIGEST_BITS = SHA256_WORDS * 32 };
#define END_MARK 0x80000000U

/* The last word of the double hash for each lane's nonce word (the nonce with its bytes swapped). */
VECTOR_FUNCTION static inline VECTOR last_words(const struct work *work, VECTOR nonce_words)
{
    VECTOR state[8];
    VECTOR word[16];

    for (int i = 0; i < SHA256_WORDS; i++) {
        STATE(3, i) = SET(work->before3[i]);
    }
    ROUND(3, ADD(SET(sha256_round_constants[3]), nonce_words));
    FIXED(4, END_MARK);
    FIXED(5, 0);
    FIXED(6, 0);
    FIXED(7, 0);
    FIXED(8, 0);
    FIXED(9, 0);
    FIXED(10, 0);
    FIXED(11, 0);
    FIXED(12, 0);
    FIXED(13, 0);
    FIXED(14, 0);
    FIXED(15, HEADER_BITS);

    WORD(16) = SET(work->w16);
    FIXED(16, work->w16);
    WORD(17) = SET(work->w17);
    FIXED(17, work->w17);
    WORD(18) = ADD(SET(work->w18_base), SMALL0(nonce_words));
    GIVEN(18);
    WORD(19) = ADD(SET(work->w19_base), nonce_words);
    GIVEN(19);
    WORD(20) = ADD(SMALL1(WORD(18)), SET(END_MARK));
    GIVEN(20);
    WORD(21) = SMALL1(WORD(19));
    GIVEN(21);
    WORD(22) = ADD(SMALL1(WORD(20)), SET(HEADER_BITS));
    GIVEN(22);
    WORD(23) = ADD(SMALL1(WORD(21)), WORD(16));
    GIVEN(23);
    WORD(24) = ADD(SMALL1(WORD(22)), WORD(17));
    GIVEN(24);
    WORD(25) = ADD(SMALL1(WORD(23)), WORD(18));
    GIVEN(25);
    WORD(26) = ADD(SMALL1(WORD(24)), WORD(19));
    GIVEN(26);
    WORD(27) = ADD(SMALL1(WORD(25)), WORD(20));
    GIVEN(27);
    WORD(28) = ADD(SMALL1(WORD(26)), WORD(21));
    GIVEN(28);
    WORD(29) = ADD(SMALL1(WORD(27)), WORD(22));
    GIVEN(29);
    WORD(30) = ADD3(SMALL1(WORD(28)), WORD(23), SET(sha256_small0(HEADER_BITS)));
    GIVEN(30);
    WORD(31) = ADD3(SMALL1(WORD(29)), WORD(24), SET(sha256_small0(work->w16) + HEADER_BITS));
    GIVEN(31);
    WORD(32) = ADD3(SMALL1(WORD(30)), WORD(25), SET(sha256_small0(work->w17) + work->w16));
    GIVEN(32);
    FULL(33);
    FULL(34);
    FULL(35);
    FULL4(36);
    FULL4(40);
    FULL4(44);
    FULL4(48);
    FULL4(52);
    FULL4(56);
    FULL4(60);

    for (int i = 0; i < SHA256_WORDS; i++) {
        WORD(i) = ADD(SET(work->midstate[i]), STATE(64, i));
        STATE(0, i) = SET(sha256_initial[i]);
    }
    GIVEN(0);
    GIVEN(1);
    GIVEN(2);
    GIVEN(3);
    GIVEN(4);
    GIVEN(5);
    GIVEN(6);
    GIVEN(7);
    FIXED(8, END_MARK);
    FIXED(9, 0);
    FIXED(10, 0);
    FIXED(11, 0);
    FIXED(12, 0);
    FIXED(13, 0);
    FIXED(14, 0);
    FIXED(15, DIGEST_BITS);

    WORD(16) = ADD(SMALL0(WORD(1)), WORD(0));
    GIVEN(16);
    WORD(17) = ADD3(SET(sha256_small1(DIGEST_BITS)), SMALL0(WORD(2)), WORD(1));
    GIVEN(17);
    WORD(18) = ADD3(SMALL1(WORD(16)), SMALL0(WORD(3)), WORD(2));
    GIVEN(18);
    WORD(19) = ADD3(SMALL1(WORD(17)), SMALL0(WORD(4)), WORD(3));
    GIVEN(19);
    WORD(20) = ADD3(SMALL1(WORD(18)), SMALL0(WORD(5)), WORD(4));
    GIVEN(20);
    WORD(21) = ADD3(SMALL1(WORD(19)), SMALL0(WORD(6)), WORD(5));
    GIVEN(21);
    WORD(22) = ADD4(SMALL1(WORD(20)), SET(DIGEST_BITS), SMALL0(WORD(7)), WORD(6));
    GIVEN(22);
    WORD(23) = ADD4(SMALL1(WORD(21)), WORD(16), SET(sha256_small0(END_MARK)), WORD(7));
    GIVEN(23);
    WORD(24) = ADD3(SMALL1(WORD(22)), WORD(17), SET(END_MARK));
    GIVEN(24);
    WORD(25) = ADD(SMALL1(WORD(23)), WORD(18));
    GIVEN(25);
    WORD(26) = ADD(SMALL1(WORD(24)), WORD(19));
    GIVEN(26);
    WORD(27) = ADD(SMALL1(WORD(25)), WORD(20));
    GIVEN(27);
    WORD(28) = ADD(SMALL1(WORD(26)), WORD(21));
    GIVEN(28);
    WORD(29) = ADD(SMALL1(WORD(27)), WORD(22));
    GIVEN(29);
    WORD(30) = ADD3(SMALL1(WORD(28)), WORD(23), SET(sha256_small0(DIGEST_BITS)));
    GIVEN(30);
    WORD(31) = ADD4(SMALL1(WORD(29)), WORD(24), SMALL0(WORD(16)), SET(DIGEST_BITS));
    GIVEN(31);
    FULL4(32);
    FULL4(36);
    FULL4(40);
    FULL4(44);
    FULL4(48);
    FULL4(52);
    FULL4(56);
    FULL(60);
    return ADD(SET(sha256_initial[7]), STATE(61, 4));
}

#endif
