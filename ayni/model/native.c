/* The transformer's element-wise passes, each over memory once: rows stay in the first-level cache between their
 * reading and their writing, where torch's operations write every step of them out. Compiled twice by native.py: for
 * float, and for bf16 (BF16). Sums are in fp32, in one fixed order for one machine. A NaN comes out as a NaN.
 */

#include "numbers.h"

/* stream = x + branch (x itself without a branch); scale = 1/√(mean(stream²) + ε); out = stream·scale·weight. */
void add_norm(long rows, long dim, const float *x, const number *branch, const float *weight, float eps,
              float *stream, number *out, float *scales) {
    for (long row = 0; row < rows; row++, x += dim, out += dim) {
        const float *sum = x;
        float squares = 0;
        if (branch) {
#pragma omp simd
            for (long i = 0; i < dim; i++)
                stream[i] = x[i] + widen(branch[i]);
            sum = stream, stream += dim, branch += dim;
        }
#pragma omp simd reduction(+ : squares)
        for (long i = 0; i < dim; i++)
            squares += sum[i] * sum[i];
        float scale = scales[row] = 1 / sqrtf(squares / dim + eps);
#pragma omp simd
        for (long i = 0; i < dim; i++)
            out[i] = narrow(sum[i] * scale * weight[i]);
    }
}

/* d_x = d_stream + scale·(g·weight − n·mean(g·weight·n)), n = stream·scale; d_branch is it, rounded; d_weight = Σ g·n.
 * d_stream may be absent (0), d_branch unwanted (0). */
void add_norm_backward(long rows, long dim, const number *g, const float *d_stream, const float *stream,
                       const float *weight, const float *scales, float *d_x, number *d_branch, float *d_weight) {
    for (long row = 0; row < rows; row++, g += dim, stream += dim, d_x += dim) {
        float scale = scales[row], dot = 0;
#pragma omp simd reduction(+ : dot)
        for (long i = 0; i < dim; i++) {
            float d = widen(g[i]), n = stream[i] * scale;
            d_weight[i] += d * n;
            dot += d * weight[i] * n;
        }
        dot /= dim;
#pragma omp simd
        for (long i = 0; i < dim; i++)
            d_x[i] = scale * (widen(g[i]) * weight[i] - stream[i] * scale * dot);
        if (d_stream) {
#pragma omp simd
            for (long i = 0; i < dim; i++)
                d_x[i] += d_stream[i];
            d_stream += dim;
        }
        if (d_branch) {
#pragma omp simd
            for (long i = 0; i < dim; i++)
                d_branch[i] = narrow(d_x[i]);
            d_branch += dim;
        }
    }
}

/* out = gate·σ(gate)·value; rows of gate and value lie `stride` apart, those of out `width`. */
void swiglu(long rows, long width, long stride, const number *gate, const number *value, number *out) {
    for (long row = 0; row < rows; row++, gate += stride, value += stride, out += width) {
#pragma omp simd
        for (long i = 0; i < width; i++) {
            float x = widen(gate[i]);
            out[i] = narrow(x / (1 + exponential(-x)) * widen(value[i]));
        }
    }
}

void swiglu_backward(long size, const number *g, const number *gate, const number *value, number *d_gate,
                     number *d_value) {
#pragma omp simd
    for (long i = 0; i < size; i++) {
        float x = widen(gate[i]), d = widen(g[i]), sigmoid = 1 / (1 + exponential(-x)), silu = x * sigmoid;
        d_value[i] = narrow(d * silu);
        d_gate[i] = narrow(d * widen(value[i]) * (sigmoid + silu * (1 - sigmoid)));
    }
}

/* Adjacent pairs of x (rows, heads, 2·half), rows `stride` apart, turned by rotation (rows, half) = cos, sin; direction
 * −1 turns back. */
void rotate(long rows, long heads, long half, long stride, const number *x, const float *rotation, float direction,
            number *out) {
    for (long row = 0; row < rows; row++, x += stride, rotation += 2 * half)
        for (long head = 0; head < heads; head++, out += 2 * half) {
            const number *pairs = x + 2 * half * head;
#pragma omp simd
            for (long i = 0; i < half; i++) {
                float re = widen(pairs[2 * i]), im = widen(pairs[2 * i + 1]);
                float cosine = rotation[2 * i], sine = direction * rotation[2 * i + 1];
                out[2 * i] = narrow(re * cosine - im * sine);
                out[2 * i + 1] = narrow(re * sine + im * cosine);
            }
        }
}
