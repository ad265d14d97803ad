/* Causal attention inside the sequences of a flat batch, and its derivative. ROWS queries of one head at a time: their
 * scores stand in the caches, never in memory, and nothing is padded. Numbers in and out, sums in float, in one order for
 * each sequence whatever stands beside it; what is multiplied is rounded to pairs where the processor multiplies those. */

#include <stdlib.h>
#include "pairs.h"

typedef struct {
    long heads, kv_heads, size; /* size: a multiple of LANES */
    float scale;
    /* sequence i has the columns [first, first + shared) of another, and then its own [start, end); its queries are its own */
    const long *first, *shared, *start, *end;
} sequences;

/* y (ROWS, LANES) = or += Σ_k x[row·row_step + k·step] · panel[k·panel_step, LANES, PAIR] for k < in. */
static inline __attribute__((always_inline)) void add_tile(int add, long in, const factor *x, long row_step, long step,
                                                           const number *panel, long panel_step, float *y, long y_step) {
    lanes sums[ROWS];
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; row++)
        sums[row] = add ? *(lanes *)(y + row * y_step) : (lanes){0};
    for (long k = 0; k < in; k++) {
        weights right = weighed(panel + k * panel_step);
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; row++)
            sums[row] = plus(sums[row], x[row * row_step + k * step], right);
    }
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; row++)
        *(lanes *)(y + row * y_step) = sums[row];
}

/* Rows of numbers, `from` apart, side by side: (all, size); those that are missing are zeros. */
static void copied(long rows, long all, long size, const number *x, long from, number *out) {
    for (long row = 0; row < rows; row++)
        memcpy(out + row * size, x + row * from, size * sizeof(number));
    memset(out + rows * size, 0, (all - rows) * size * sizeof(number));
}

/* The keys or values of one head of a sequence: (columns, size), filled up with zeros. */
static void gathered(const sequences *s, long i, long head, long columns, const number *x, number *out) {
    long size = s->size, stride = s->kv_heads * size, shared = s->shared[i], own = s->end[i] - s->start[i];
    copied(shared, shared, size, x + s->first[i] * stride + head * size, stride, out);
    copied(own, columns - shared, size, x + s->start[i] * stride + head * size, stride, out + shared * size);
}

/* x (columns, size) as panels (columns/LANES, size/PAIR, LANES, PAIR): a product over size gives LANES columns. */
static void in_panels(long columns, long size, const number *x, number *panels) {
    for (long first = 0; first < columns; first += LANES)
        for (long i = 0; i < size; i += PAIR)
            for (long lane = 0; lane < LANES; lane++)
                for (long one = 0; one < PAIR; one++)
                    *panels++ = x[(first + lane) * size + i + one];
}

/* x (columns, size) as (columns/PAIR, size, PAIR): a product over columns gives LANES of size. */
static const number *stacked(long columns, long size, const number *x, number *scratch) {
    if (PAIR == 1)
        return x;
    number *out = scratch;
    for (long column = 0; column < columns; column += PAIR)
        for (long i = 0; i < size; i++)
            for (long one = 0; one < PAIR; one++)
                *out++ = x[(column + one) * size + i];
    return scratch;
}

static inline long filled(long columns) { return (columns + ROWS - 1) / ROWS * ROWS; }

/* Products of ROWS rows of x (·, size) with the columns in panels: (ROWS, columns). */
static void across(long size, long columns, const factor *x, const number *panels, float *y) {
    for (long first = 0; first < columns; first += LANES)
        add_tile(0, size / PAIR, x, size / PAIR, 1, panels + first * size, LANES * PAIR, y + first, columns);
}

/* y (ROWS, size) = x (ROWS, columns) · stack. */
static void along(long size, long columns, const factor *x, const number *stack, float *y) {
    for (long j = 0; j < size; j += LANES)
        add_tile(0, columns / PAIR, x, columns / PAIR, 1, stack + j * PAIR, size * PAIR, y + j, size);
}

/* y (columns, size) += xᵀ · stack of ROWS rows, x (ROWS/PAIR, columns). */
static void back(long size, long columns, const factor *x, const number *stack, float *y) {
    for (long column = 0; column < columns; column += ROWS)
        for (long j = 0; j < size; j += LANES)
            add_tile(1, ROWS / PAIR, x + column, 1, columns, stack + j * PAIR, size * PAIR, y + column * size + j, size);
}

/* out (T, heads, size), and log Σ exp of each query's scores (T, heads), from q (T, heads, size), k and v (T, kv_heads,
 * size), of the sequences [from, to); `longest` of them has so many columns. 1 without memory for it. */
long attention(const sequences *s, long from, long to, long longest, const number *q, const number *k, const number *v,
               number *out, float *logs) {
    long size = s->size, width = filled(longest), group = s->heads / s->kv_heads, stride = s->heads * size;
    float *scores = malloc((2 * width * ROWS + 2 * ROWS * size) * sizeof(float) + (3 * width + ROWS) * size * sizeof(number));
    if (!scores)
        return 1;
    float *sums = scores + ROWS * width;
    factor *scratch = (factor *)(sums + ROWS * size), *wide = scratch + ROWS * width;
    number *of_head = (number *)(wide + ROWS * size), *panels = of_head + width * size, *stack = panels + width * size;
    number *queries = stack + width * size;
    for (long i = from; i < to; i++)
        for (long kv = 0; kv < s->kv_heads; kv++) {
            long shared = s->shared[i], own = s->end[i] - s->start[i], columns = filled(shared + own);
            gathered(s, i, kv, columns, k, of_head);
            in_panels(columns, size, of_head, panels);
            gathered(s, i, kv, columns, v, of_head);
            const number *values = stacked(columns, size, of_head, stack);
            for (long head = kv * group; head < (kv + 1) * group; head++)
                for (long first = 0; first < own; first += ROWS) {
                    long rows = own - first < ROWS ? own - first : ROWS, seen = filled(shared + first + rows);
                    long at = (s->start[i] + first) * stride + head * size;
                    float shares[ROWS];
                    copied(rows, ROWS, size, q + at, stride, queries);
                    across(size, seen, as_factors(ROWS * size, queries, wide), panels, scores);
                    for (long row = 0; row < rows; row++) {
                        float *of = scores + row * seen, most = -INFINITY, total = 0;
                        long end = shared + first + row + 1;
#pragma omp simd reduction(max : most)
                        for (long j = 0; j < end; j++)
                            most = of[j] > most ? of[j] : most;
#pragma omp simd reduction(+ : total)
                        for (long j = 0; j < end; j++)
                            total += of[j] = exponential((of[j] - most) * s->scale);
                        memset(of + end, 0, (seen - end) * sizeof(float));
                        logs[(s->start[i] + first + row) * s->heads + head] = most * s->scale + logf(total);
                        shares[row] = 1 / total;
                    }
                    along(size, seen, factors(ROWS * seen, scores, scratch), values, sums);
                    for (long row = 0; row < rows; row++)
#pragma omp simd
                        for (long j = 0; j < size; j++)
                            out[at + row * stride + j] = narrow(sums[row * size + j] * shares[row]);
                }
        }
    free(scores);
    return 0;
}

/* d_q (T, heads, size), and d_k, d_v (T, kv_heads, size) as floats, to which is added: columns may be shared. */
long attention_backward(const sequences *s, long from, long to, long longest, const number *q, const number *k,
                        const number *v, const number *out, const float *logs, const number *g, number *d_q, float *d_k,
                        float *d_v) {
    long size = s->size, width = filled(longest), group = s->heads / s->kv_heads, stride = s->heads * size;
    float *shares = malloc((3 * width * ROWS + 2 * width * size + 2 * ROWS * size) * sizeof(float) +
                           (4 * width + 3 * ROWS) * size * sizeof(number));
    if (!shares)
        return 1;
    float *d_scores = shares + ROWS * width, *of_keys = d_scores + ROWS * width, *of_values = of_keys + width * size;
    float *sums = of_values + width * size;
    factor *scratch = (factor *)(sums + ROWS * size), *wide = scratch + ROWS * width;
    number *of_head = (number *)(wide + ROWS * size), *key_panels = of_head + width * size;
    number *value_panels = key_panels + width * size, *stack = value_panels + width * size;
    number *queries = stack + width * size, *grads = queries + ROWS * size, *lower_stack = grads + ROWS * size;
    for (long i = from; i < to; i++)
        for (long kv = 0; kv < s->kv_heads; kv++) {
            long shared = s->shared[i], own = s->end[i] - s->start[i], columns = filled(shared + own);
            gathered(s, i, kv, columns, v, of_head);
            in_panels(columns, size, of_head, value_panels);
            gathered(s, i, kv, columns, k, of_head);
            in_panels(columns, size, of_head, key_panels);
            const number *keys = stacked(columns, size, of_head, stack);
            memset(of_keys, 0, 2 * width * size * sizeof(float));
            for (long head = kv * group; head < (kv + 1) * group; head++)
                for (long first = 0; first < own; first += ROWS) {
                    long rows = own - first < ROWS ? own - first : ROWS, seen = filled(shared + first + rows);
                    long at = (s->start[i] + first) * stride + head * size;
                    copied(rows, ROWS, size, q + at, stride, queries);
                    copied(rows, ROWS, size, g + at, stride, grads);
                    across(size, seen, as_factors(ROWS * size, queries, wide), key_panels, shares);
                    across(size, seen, as_factors(ROWS * size, grads, wide), value_panels, d_scores);
                    for (long row = 0; row < ROWS; row++) {
                        float *share = shares + row * seen, *d_score = d_scores + row * seen, dot = 0, log = 0;
                        long end = row < rows ? shared + first + row + 1 : 0;
                        if (end) {
                            /* Σ_j share_j · (g·v_j) = g·out */
#pragma omp simd reduction(+ : dot)
                            for (long j = 0; j < size; j++)
                                dot += widen(grads[row * size + j]) * widen(out[at + row * stride + j]);
                            log = logs[(s->start[i] + first + row) * s->heads + head];
                        }
#pragma omp simd
                        for (long j = 0; j < end; j++) {
                            share[j] = exponential(share[j] * s->scale - log);
                            d_score[j] = share[j] * (d_score[j] - dot);
                        }
                        memset(share + end, 0, (seen - end) * sizeof(float));
                        memset(d_score + end, 0, (seen - end) * sizeof(float));
                    }
                    along(size, seen, factors(ROWS * seen, d_scores, scratch), keys, sums);
                    for (long row = 0; row < rows; row++)
#pragma omp simd
                        for (long j = 0; j < size; j++)
                            d_q[at + row * stride + j] = narrow(sums[row * size + j] * s->scale);
                    const number *lower = stacked(ROWS, size, queries, lower_stack);
                    back(size, seen, crossed(ROWS, seen, d_scores, scratch), lower, of_keys);
                    lower = stacked(ROWS, size, grads, lower_stack);
                    back(size, seen, crossed(ROWS, seen, shares, scratch), lower, of_values);
                }
            for (long column = 0; column < shared + own; column++) {
                long place = column < shared ? s->first[i] + column : s->start[i] + column - shared;
                float *to_k = d_k + (place * s->kv_heads + kv) * size, *to_v = d_v + (place * s->kv_heads + kv) * size;
#pragma omp simd
                for (long j = 0; j < size; j++) {
                    to_k[j] += of_keys[column * size + j] * s->scale;
                    to_v[j] += of_values[column * size + j];
                }
            }
        }
    free(shares);
    return 0;
}
