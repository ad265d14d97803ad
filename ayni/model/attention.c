/* Causal attention inside the sequences of a flat batch, and its derivative. ROWS queries of one head at a time: their
 * scores stand in the caches, never in memory, and nothing is padded or copied into rows. Numbers in and out, sums in
 * float, in one order for each sequence whatever stands beside it. */

#include <stdlib.h>
#include "vectors.h"

typedef struct {
    long heads, kv_heads, size; /* size: a multiple of LANES */
    float scale;
    /* sequence i has the columns [first, first + shared) of another, and then its own [start, end); its queries are its own */
    const long *first, *shared, *start, *end;
} sequences;

/* y (ROWS, LANES) = or += Σ_k x[row·row_step + k·step] · panel[k·panel_step, LANES] for k < in. */
static inline __attribute__((always_inline)) void add_tile(int add, long in, const float *x, long row_step, long step,
                                                           const float *panel, long panel_step, float *y, long y_step) {
    lanes sums[ROWS];
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; row++)
        sums[row] = add ? *(lanes *)(y + row * y_step) : (lanes){0};
    for (long k = 0; k < in; k++) {
        lanes right = *(const lanes *)(panel + k * panel_step);
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; row++)
            sums[row] += x[row * row_step + k * step] * right;
    }
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; row++)
        *(lanes *)(y + row * y_step) = sums[row];
}

/* Rows of numbers, `from` apart, as floats (rows, size) times scale; rows that are missing are zeros. */
static void widened(long rows, long all, long size, const number *x, long from, float scale, float *out) {
    for (long row = 0; row < rows; row++)
#pragma omp simd
        for (long i = 0; i < size; i++)
            out[row * size + i] = widen(x[row * from + i]) * scale;
    memset(out + rows * size, 0, (all - rows) * size * sizeof(float));
}

/* x (columns, size) as panels (columns/LANES, size, LANES): what queries are multiplied with. */
static void in_panels(long columns, long size, const float *x, float *panels) {
    for (long first = 0; first < columns; first += LANES)
        for (long i = 0; i < size; i++)
            for (long lane = 0; lane < LANES; lane++)
                panels[(first * size) + i * LANES + lane] = x[(first + lane) * size + i];
}

/* The keys or values of one head of a sequence: (columns, size), filled up with zeros. */
static void gathered(const sequences *s, long i, long head, long columns, const number *x, float *out) {
    long size = s->size, stride = s->kv_heads * size, shared = s->shared[i], own = s->end[i] - s->start[i];
    widened(shared, shared, size, x + s->first[i] * stride + head * size, stride, 1, out);
    widened(own, columns - shared, size, x + s->start[i] * stride + head * size, stride, 1, out + shared * size);
}

static inline long filled(long columns) { return (columns + ROWS - 1) / ROWS * ROWS; }

/* Scores of ROWS queries with the keys that the last of them sees: (ROWS, columns). */
static void score(long size, long columns, long width, const float *q, const float *panels, float *scores) {
    for (long first = 0; first < columns; first += LANES)
        add_tile(0, size, q, size, 1, panels + first * size, LANES, scores + first, width);
}

/* out (T, heads, size), and log Σ exp of each query's scores (T, heads), from q (T, heads, size), k and v (T, kv_heads,
 * size), of the sequences [from, to); `longest` of them has so many columns. 1 without memory for it. */
long attention(const sequences *s, long from, long to, long longest, const number *q, const number *k, const number *v,
               number *out, float *logs) {
    long size = s->size, width = filled(longest), group = s->heads / s->kv_heads, stride = s->heads * size;
    float *keys = malloc((3 * width * size + ROWS * (2 * size + width)) * sizeof(float));
    if (!keys)
        return 1;
    float *panels = keys + width * size, *values = panels + width * size, *queries = values + width * size;
    float *scores = queries + ROWS * size, *sums = scores + ROWS * width;
    for (long i = from; i < to; i++)
        for (long kv = 0; kv < s->kv_heads; kv++) {
            long shared = s->shared[i], own = s->end[i] - s->start[i], columns = filled(shared + own);
            gathered(s, i, kv, columns, k, keys);
            gathered(s, i, kv, columns, v, values);
            in_panels(columns, size, keys, panels);
            for (long head = kv * group; head < (kv + 1) * group; head++)
                for (long first = 0; first < own; first += ROWS) {
                    long rows = own - first < ROWS ? own - first : ROWS, seen = filled(shared + first + rows);
                    long at = (s->start[i] + first) * stride + head * size;
                    widened(rows, ROWS, size, q + at, stride, s->scale, queries);
                    score(size, seen, width, queries, panels, scores);
                    for (long row = 0; row < rows; row++) {
                        float *of = scores + row * width, most = -INFINITY, total = 0;
                        long end = shared + first + row + 1;
#pragma omp simd reduction(max : most)
                        for (long j = 0; j < end; j++)
                            most = of[j] > most ? of[j] : most;
#pragma omp simd reduction(+ : total)
                        for (long j = 0; j < end; j++)
                            total += of[j] = exponential(of[j] - most);
                        float share = 1 / total;
#pragma omp simd
                        for (long j = 0; j < end; j++)
                            of[j] *= share;
                        memset(of + end, 0, (seen - end) * sizeof(float));
                        logs[(s->start[i] + first + row) * s->heads + head] = most + logf(total);
                    }
                    memset(scores + rows * width, 0, (ROWS - rows) * width * sizeof(float));
                    for (long j = 0; j < size; j += LANES)
                        add_tile(0, seen, scores, width, 1, values + j, size, sums + j, size);
                    for (long row = 0; row < rows; row++)
#pragma omp simd
                        for (long j = 0; j < size; j++)
                            out[at + row * stride + j] = narrow(sums[row * size + j]);
                }
        }
    free(keys);
    return 0;
}

/* d_q (T, heads, size), and d_k, d_v (T, kv_heads, size) as floats, to which is added: columns may be shared. */
long attention_backward(const sequences *s, long from, long to, long longest, const number *q, const number *k,
                        const number *v, const number *out, const float *logs, const number *g, number *d_q, float *d_k,
                        float *d_v) {
    long size = s->size, width = filled(longest), group = s->heads / s->kv_heads, stride = s->heads * size;
    float *keys = malloc((6 * width * size + ROWS * (3 * size + 2 * width)) * sizeof(float));
    if (!keys)
        return 1;
    float *key_panels = keys + width * size, *values = key_panels + width * size, *value_panels = values + width * size;
    float *of_keys = value_panels + width * size, *of_values = of_keys + width * size, *queries = of_values + width * size;
    float *grads = queries + ROWS * size, *sums = grads + ROWS * size;
    float *shares = sums + ROWS * size, *d_scores = shares + ROWS * width;
    for (long i = from; i < to; i++)
        for (long kv = 0; kv < s->kv_heads; kv++) {
            long shared = s->shared[i], own = s->end[i] - s->start[i], columns = filled(shared + own);
            gathered(s, i, kv, columns, k, keys);
            gathered(s, i, kv, columns, v, values);
            in_panels(columns, size, keys, key_panels);
            in_panels(columns, size, values, value_panels);
            memset(of_keys, 0, 2 * width * size * sizeof(float));
            for (long head = kv * group; head < (kv + 1) * group; head++)
                for (long first = 0; first < own; first += ROWS) {
                    long rows = own - first < ROWS ? own - first : ROWS, seen = filled(shared + first + rows);
                    long at = (s->start[i] + first) * stride + head * size;
                    widened(rows, ROWS, size, q + at, stride, s->scale, queries);
                    widened(rows, ROWS, size, g + at, stride, 1, grads);
                    score(size, seen, width, queries, key_panels, shares);
                    score(size, seen, width, grads, value_panels, d_scores);
                    for (long row = 0; row < ROWS; row++) {
                        float *share = shares + row * width, *d_score = d_scores + row * width, dot = 0, log = 0;
                        long end = row < rows ? shared + first + row + 1 : 0;
                        if (end) {
                            /* Σ_j share_j · (g·v_j) = g·out */
#pragma omp simd reduction(+ : dot)
                            for (long j = 0; j < size; j++)
                                dot += grads[row * size + j] * widen(out[at + row * stride + j]);
                            log = logs[(s->start[i] + first + row) * s->heads + head];
                        }
#pragma omp simd
                        for (long j = 0; j < end; j++) {
                            share[j] = exponential(share[j] - log);
                            d_score[j] = share[j] * (d_score[j] - dot);
                        }
                        memset(share + end, 0, (seen - end) * sizeof(float));
                        memset(d_score + end, 0, (seen - end) * sizeof(float));
                    }
                    for (long j = 0; j < size; j += LANES) {
                        add_tile(0, seen, d_scores, width, 1, keys + j, size, sums + j, size);
                        for (long key = 0; key < seen; key += ROWS) {
                            add_tile(1, ROWS, shares + key, 1, width, grads + j, size, of_values + key * size + j, size);
                            add_tile(1, ROWS, d_scores + key, 1, width, queries + j, size, of_keys + key * size + j, size);
                        }
                    }
                    for (long row = 0; row < rows; row++)
#pragma omp simd
                        for (long j = 0; j < size; j++)
                            d_q[at + row * stride + j] = narrow(sums[row * size + j] * s->scale);
                }
            for (long column = 0; column < shared + own; column++) {
                long place = column < shared ? s->first[i] + column : s->start[i] + column - shared;
                float *to_k = d_k + (place * s->kv_heads + kv) * size, *to_v = d_v + (place * s->kv_heads + kv) * size;
#pragma omp simd
                for (long j = 0; j < size; j++) {
                    to_k[j] += of_keys[column * size + j];
                    to_v[j] += of_values[column * size + j];
                }
            }
        }
    free(keys);
    return 0;
}
