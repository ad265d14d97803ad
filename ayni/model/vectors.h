/* Vectors of floats, as long as the processor's own where it has AVX-512 or AVX2, and numbers read as such. */

#include "numbers.h"

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 16 /* whose sums stay in registers */
#else
#define LANES 8
#define ROWS 8
#endif

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#ifdef BF16
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

static inline lanes load(const number *x) {
    return (lanes)(__builtin_convertvector(*(const halves *)x, words) << 16);
}
#else
static inline lanes load(const number *x) { return *(const lanes *)x; }
#endif
