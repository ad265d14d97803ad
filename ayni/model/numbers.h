/* What activations are kept as: float, or bf16 (BF16). Sums are in float. */

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

#ifdef BF16
typedef uint16_t number;

static inline float widen(number x) { return float_of((uint32_t)x << 16); }

static inline number narrow(float x) { /* to nearest, ties to even, as torch rounds */
    uint32_t bits = bits_of(x), rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (number)(((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : rounded) >> 16);
}
#else
typedef float number;

static inline float widen(number x) { return x; }
static inline number narrow(float x) { return x; }
#endif

/* e^x to 2e-7 of itself: 2^whole by the exponent's bits, 2^fraction by its series. Below e^−87 it is 0, above e^88 ∞. */
static inline float exponential(float x) {
    float y = x * 1.442695041f, bounded = y < -126 ? -126 : y > 128 ? 128 : y;
    float whole = rintf(bounded), f = bounded - whole;
    float series = 1 + f * (0.6931471806f + f * (0.2402265070f + f * (0.05550410866f +
                   f * (0.009618129108f + f * (0.001333355815f + f * 0.0001540353039f)))));
    float power = float_of((uint32_t)((int32_t)whole + 127) << 23);
    return y < -126 ? 0 : series * power;
}
