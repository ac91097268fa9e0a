/* Keyed noise and keyed candidates in plain C99: a reference for docs/artifacts.md, equal to the last bit.

       cc -std=c99 -O2 -ffp-contract=off keyed.c -lm -o keyed
       keyed noise seed key kind offset n                      float64 as 16 hex digits, one a line
       keyed float64|float32 seed candidate offset < centre    the same of the values, as many as the centre has
       keyed short < numbers                                   the same of float64 rounded as the table is

   Centre and numbers are read raw, in the machine's byte order; the candidate is its 24 bytes in hex.
   -ffp-contract=off matters: a fused multiply and add rounds once where twice is meant. */

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 0, SIGN = 1, TABLE = 2 };

/* High and low word of a * b. */
static void multiply(uint64_t a, uint64_t b, uint64_t *high, uint64_t *low) {
    uint64_t a0 = a & 0xFFFFFFFFu, a1 = a >> 32, b0 = b & 0xFFFFFFFFu, b1 = b >> 32;
    uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & 0xFFFFFFFFu);
    *high = a1 * b1 + (middle >> 32) + (other >> 32);
    *low = a * b;
}

/* Philox4x64-10: cipher key (seed, "blackopt"), counter (block, stream, key, kind). */
static void philox(uint64_t seed, uint64_t block, uint64_t stream, uint64_t key, uint64_t kind, uint64_t x[4]) {
    uint64_t k0 = seed, k1 = UINT64_C(0x74706F6B63616C62); /* "blackopt", little-endian */
    int round;
    x[0] = block, x[1] = stream, x[2] = key, x[3] = kind;
    for (round = 0; round < 10; round++) {
        uint64_t h0, l0, h1, l1;
        multiply(UINT64_C(0xD2E7470EE14C6C93), x[0], &h0, &l0);
        multiply(UINT64_C(0xCA5A826395121157), x[2], &h1, &l1);
        x[0] = h1 ^ x[1] ^ k0, x[1] = l1;
        x[2] = h0 ^ x[3] ^ k1, x[3] = l0;
        k0 += UINT64_C(0x9E3779B97F4A7C15), k1 += UINT64_C(0xBB67AE8584CAA73B);
    }
}

static double natural_log(double p) {
    int exponent;
    double m = frexp(p, &exponent), s, t, sum;
    if (m < 0.7071067811865476) m = 2.0 * m, exponent -= 1;
    s = (m - 1.0) / (m + 1.0), t = s * s;
    sum = 2.0 / 11.0;
    sum = sum * t + 2.0 / 9.0;
    sum = sum * t + 2.0 / 7.0;
    sum = sum * t + 2.0 / 5.0;
    sum = sum * t + 2.0 / 3.0;
    sum = sum * t + 2.0;
    return (double)exponent * 0.6931471805599453 + s * sum;
}

/* PPND7 of AS 241 at (half + 1/2) / 2^32. */
static double normal(uint32_t half) {
    double q = ((double)half - 2147483647.5) * 0x1p-32, r, above, below;
    if (fabs(q) <= 0.425) {
        r = 0.180625 - q * q;
        above = ((59.109374720 * r + 159.29113202) * r + 50.434271938) * r + 3.3871327179;
        below = ((67.187563600 * r + 78.757757664) * r + 17.895169469) * r + 1.0;
        return above * q / below;
    }
    r = sqrt(-natural_log(0.5 - fabs(q))) - 1.6;
    above = ((0.17023821103 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777;
    below = (0.12021132975 * r + 0.73700164250) * r + 1.0;
    return copysign(above / below, q);
}

/* Normal number i of a key, or of the table, which is stream 1 of key 0. */
static double drawn(uint64_t seed, uint64_t stream, uint64_t key, uint64_t kind, uint64_t i) {
    uint64_t words[4];
    philox(seed, i / 8 + 1, stream, key, kind, words);
    return normal((uint32_t)(words[i % 8 / 2] >> 32 * (i % 2)));
}

/* The nearest number of 12 significant bits, the even one of two that are equally near. */
static double to_12_bits(double number) {
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    bits += (UINT64_C(1) << 40) - 1 + (bits >> 41 & 1);
    bits = bits >> 41 << 41;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* The number at one position; a real implementation keeps the block for its neighbours, and
   makes the table once. */
static double noise(uint64_t seed, uint64_t key, uint64_t kind, uint64_t position) {
    uint64_t words[4], word, block = position >> 14;
    double number;
    if (kind == NORMAL) return drawn(seed, 0, key, NORMAL, position);
    philox(seed, (kind == SIGN ? position / 256 : block / 4) + 1, 0, key, kind, words);
    if (kind == SIGN) return words[position / 64 % 4] >> position % 64 & 1 ? 1.0 : -1.0;
    word = words[block % 4];
    number = to_12_bits(drawn(seed, 1, 0, TABLE, (word + (position & 0x3FFF)) & 0x3FFFFF));
    return word >> 63 ? number : -number;
}

static uint64_t little_endian(const unsigned char *bytes, int count) {
    uint64_t value = 0;
    while (count--) value = value << 8 | bytes[count];
    return value;
}

static void show(const void *number, size_t size) {
    uint64_t wide;
    uint32_t narrow;
    if (size == sizeof wide) memcpy(&wide, number, size), printf("%016" PRIx64 "\n", wide);
    else memcpy(&narrow, number, size), printf("%08" PRIx32 "\n", narrow);
}

static int candidate(int narrow, uint64_t seed, const char *hex, uint64_t position) {
    unsigned char bytes[24];
    uint64_t key, kind, bits;
    double step, centre, value;
    float single, moved;
    int i;
    if (strlen(hex) != 48) return 2;
    for (i = 0; i < 24; i++) {
        unsigned int byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1) return 2;
        bytes[i] = (unsigned char)byte;
    }
    if (bytes[0] != 0x4B || bytes[1] >> 1 > TABLE) return 2;
    kind = bytes[1] >> 1, key = little_endian(bytes + 8, 8), bits = little_endian(bytes + 16, 8);
    memcpy(&step, &bits, sizeof step);
    if (!(step > 0.0 && isfinite(step))) return 2;
    if (bytes[1] & 1) step = -step;
    for (;; position++) {
        if (narrow) {
            if (fread(&single, sizeof single, 1, stdin) != 1) return 0;
            centre = single;
        } else if (fread(&centre, sizeof centre, 1, stdin) != 1) return 0;
        value = noise(seed, key, kind, position);
        if (narrow && kind == TABLE) {
            moved = (float)value * (float)step;
            single = single + moved;
        } else {
            value = value * step;
            value = value + centre;
            single = (float)value;
        }
        if (narrow) show(&single, sizeof single);
        else show(&value, sizeof value);
    }
}

int main(int argc, char **argv) {
    uint64_t argument[5], i;
    if (argc == 5 && (!strcmp(argv[1], "float64") || !strcmp(argv[1], "float32")))
        return candidate(!strcmp(argv[1], "float32"), strtoull(argv[2], NULL, 10), argv[3], strtoull(argv[4], NULL, 10));
    if (argc == 2 && !strcmp(argv[1], "short")) {
        double number;
        while (fread(&number, sizeof number, 1, stdin) == 1) {
            number = to_12_bits(number);
            show(&number, sizeof number);
        }
        return 0;
    }
    if (argc != 7 || strcmp(argv[1], "noise")) return 2;
    for (i = 0; i < 5; i++) argument[i] = strtoull(argv[i + 2], NULL, 10);
    for (i = 0; i < argument[4]; i++) {
        double number = noise(argument[0], argument[1], argument[2], argument[3] + i);
        show(&number, sizeof number);
    }
    return 0;
}
