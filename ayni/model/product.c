/* Products of training on one core: x·Wᵀ, g·W and gᵀ·x. What is multiplied by is laid out in panels of LANES columns,
 * as much of it as a core's cache holds, and met by rows that stay there, too. A row's sums have one order, whatever
 * rows it is computed with. Of float; every width is a multiple of LANES. */

#include "tile.h"

#ifndef BF16
#define LAID (1 << 17) /* floats of panels that lie ready: half a megabyte */
#define TOGETHER 64    /* rows that meet all of them */
#define DEEP 256       /* tokens of a weight's gradient at a time */

static long least(long a, long b) { return a < b ? a : b; }

/* Outputs whose panels lie ready, of `in` numbers each. */
static long ready(long in) { return LAID / in < LANES ? LANES : LAID / in / LANES * LANES; }

/* How many floats `multiply` and `weigh` want beside what they are given, for x (·, in) and y (·, out). */
long product_room(long in, long out) {
    long panels = least(ready(in), out) * in, tokens = (in + ROWS) * DEEP;
    return panels > tokens ? panels : tokens;
}

/* y (rows, out) = x (rows, in)·M, M (in, out) in rows, or `turned`: as W (out, in), M = Wᵀ. */
void multiply(long rows, long in, long out, const float *x, const float *w, long turned, float *y, float *panels) {
    long count = ready(in);
    for (long first = 0; first < out; first += count) {
        long width = least(count, out - first);
        for (long f = 0; f < width; f += LANES)
            for (long k = 0; k < in; k += LANES) /* squares of it: lines of W are read once */
                for (long i = k; i < least(k + LANES, in); i++)
                    for (long j = 0; j < LANES; j++)
                        panels[f * in + i * LANES + j] =
                            turned ? w[(first + f + j) * in + i] : w[i * out + first + f + j];
        for (long row = 0; row < rows; row += TOGETHER)
            for (long f = 0; f < width; f += LANES)
                tiles(least(TOGETHER, rows - row), in, x + row * in, panels + f * in, out, LANES,
                      y + row * out + first + f);
    }
}

/* d_w (out, in) = gᵀ·x: g (tokens, out), x (tokens, in). */
void weigh(long tokens, long in, long out, const float *g, const float *x, float *d_w, float *panels) {
    float *columns = panels + in * DEEP; /* ROWS of g's, token by token */
    for (long first = 0; first < tokens; first += DEEP, g += DEEP * out, x += DEEP * in) {
        long count = least(DEEP, tokens - first);
        for (long i = 0; i < in; i += LANES)
            for (long t = 0; t < count; t++)
                memcpy(panels + i * count + t * LANES, x + t * in + i, LANES * sizeof(float));
        for (long o = 0; o < out; o += ROWS) {
            for (long t = 0; t < count; t++)
                memcpy(columns + t * ROWS, g + t * out + o, ROWS * sizeof(float));
            for (long i = 0; i < in; i += LANES)
                tile(ROWS, count, columns, 1, ROWS, panels + i * count, first > 0, in, LANES, d_w + o * in + i);
        }
    }
}
#endif
