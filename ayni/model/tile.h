/* The heart of every product: some rows times one panel of LANES outputs, whose sums stay in registers. */

#include "pairs.h"

#define AHEAD 4096 /* bytes: weights come from far, and are wanted at the pace of a core's multiplications */

/* y[row] = Σ_k x[row·across + k·along]·panel[k] over a panel (depth/PAIR, LANES, PAIR), of which `width` columns are
 * wanted; it `adds` LANES columns to what is there. rows is a constant. */
static inline __attribute__((always_inline)) void tile(const int rows, long depth, const factor *x, long across,
                                                       long along, const number *panel, int adds, long stride,
                                                       long width, float *y) {
    lanes sums[ROWS > 8 ? ROWS : 8] = {0};
    for (long k = 0; k < depth; k += PAIR, panel += PAIR * LANES, x += along) {
        weights w = weighed(panel);
        __builtin_prefetch((const char *)panel + AHEAD);
#pragma GCC unroll 16
        for (int row = 0; row < rows; row++)
            sums[row] = plus(sums[row], x[row * across], w);
    }
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++) {
        if (adds) /* behind the sum: partial sums add up to less of an error */
            sums[row] += *(const lanes *)(y + row * stride);
        memcpy(y + row * stride, &sums[row], width * sizeof(float));
    }
}

/* The same of any number of rows, x (rows, depth). */
static inline __attribute__((always_inline)) void tiles(long rows, long depth, const factor *x, const number *panel,
                                                        long stride, long width, float *y) {
    long row = 0, across = depth / PAIR;
    for (; row + ROWS <= rows; row += ROWS)
        tile(ROWS, depth, x + row * across, across, 1, panel, 0, stride, width, y + row * stride);
#define REST(size)                                                                                        \
    if (size < ROWS && ((rows - row) & size)) {                                                         \
        tile(size, depth, x + row * across, across, 1, panel, 0, stride, width, y + row * stride);        \
        row += size;                                                                                      \
    }
    REST(8) REST(4) REST(2) REST(1)
}
