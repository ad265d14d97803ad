/* Some tokens of some sequences, through the whole model at once, on one core: one of each in a step of decoding, many
 * of one where a prompt is read. Every weight is read once, in panels of LANES outputs laid out for it; what lies
 * between two products stays in the caches. Keys, values and weights are numbers (float or bf16), all else is float. A
 * row's sums have one order, whatever rows it is computed with. */

#include "tile.h"

#define BLOCK 256 /* of floats added up before they are added to a double */

#define PARTS (128 / LANES) /* of the largest head */
#define EACH(...) __VA_ARGS__
#ifdef __clang__
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t places __attribute__((vector_size(4 * LANES)));
#define PICK(a, b, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

/* A panel's outputs, how many weights of one of them lie side by side in it, and whether all this pays here: vectors
 * that a processor does not have are taken apart. */
long panel_lanes(void) { return LANES; }
long panel_pair(void) { return PAIR; }
#if defined(__AVX2__) || defined(__AVX512F__)
long panel_pays(void) { return 1; }
#else
long panel_pays(void) { return 0; }
#endif

/* y (rows, out) = x (rows, in) · Wᵀ. W lies in panels (out/LANES, in/PAIR, LANES, PAIR), filled up with zeros. */
static void product(long rows, long in, long out, const float *given, const number *w, float *y, factor *scratch) {
    const factor *x = factors(rows * in, given, scratch);
    for (long first = 0; first < out; first += LANES, w += in * LANES)
        tiles(rows, in, x, w, out, out - first < LANES ? out - first : LANES, y + first);
}

/* out = stream/√(mean(stream²) + ε), after branch has been added to stream, if there is one. */
static void normed(long rows, long dim, float eps, const float *branch, float *stream, float *out) {
    for (long row = 0; row < rows; row++, stream += dim, out += dim) {
        float squares = 0;
        if (branch) {
#pragma omp simd
            for (long i = 0; i < dim; i++)
                stream[i] += branch[i];
            branch += dim;
        }
#pragma omp simd reduction(+ : squares)
        for (long i = 0; i < dim; i++)
            squares += stream[i] * stream[i];
        float scale = 1 / sqrtf(squares / dim + eps);
#pragma omp simd
        for (long i = 0; i < dim; i++)
            out[i] = stream[i] * scale;
    }
}

/* Adjacent pairs turned by (half) = cos, sin. */
static void turn(long heads, long half, const float *rotation, float *x) {
    for (long head = 0; head < heads; head++, x += 2 * half)
        for (long i = 0; i < half; i++) {
            float re = x[2 * i], im = x[2 * i + 1], cosine = rotation[2 * i], sine = rotation[2 * i + 1];
            x[2 * i] = re * cosine - im * sine;
            x[2 * i + 1] = re * sine + im * cosine;
        }
}

/* The sums of LANES vectors' lanes, side by side: in halvings, each of which adds two vectors' neighbours into one. */
static inline __attribute__((always_inline)) lanes summed(lanes *x) {
#define HALVE(count, low, high)                                                         \
    _Pragma("GCC unroll 8") for (int i = 0; i < count; i++)                             \
        x[i] = PICK(x[2 * i], x[2 * i + 1], low) + PICK(x[2 * i], x[2 * i + 1], high);
#if LANES == 16
    HALVE(8, EACH(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
          EACH(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
    HALVE(4, EACH(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
          EACH(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    HALVE(2, EACH(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
          EACH(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    HALVE(1, EACH(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
          EACH(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#else
    HALVE(4, EACH(0, 8, 2, 10, 4, 12, 6, 14), EACH(1, 9, 3, 11, 5, 13, 7, 15))
    HALVE(2, EACH(0, 1, 8, 9, 4, 5, 12, 13), EACH(2, 3, 10, 11, 6, 7, 14, 15))
    HALVE(1, EACH(0, 1, 2, 3, 8, 9, 10, 11), EACH(4, 5, 6, 7, 12, 13, 14, 15))
#endif
    return x[0];
}

/* out (size) = softmax(q·keysᵀ/√size)·values of one head over keys and values (columns, size). */
static inline __attribute__((always_inline)) void attend_sized(const long parts, long columns, const float *q,
                                                               const number *keys, const number *values, float *scores,
                                                               float *out) {
    const long size = parts * LANES;
    float scale = 1 / sqrtf(size), most = -INFINITY, total = 0;
    lanes part[PARTS], sums[PARTS] = {0};
    for (long i = 0; i < parts; i++)
        part[i] = *(const lanes *)(q + i * LANES) * scale;
    for (long first = 0; first < columns; first += LANES) {
        lanes dots[LANES];
#pragma GCC unroll 16
        for (long i = 0; i < LANES; i++) {
            const number *key = keys + (first + i < columns ? first + i : columns - 1) * size;
            dots[i] = part[0] * load(key);
            for (long j = 1; j < parts; j++)
                dots[i] += part[j] * load(key + j * LANES);
        }
        *(lanes *)(scores + first) = summed(dots);
    }
#pragma omp simd reduction(max : most)
    for (long column = 0; column < columns; column++)
        most = scores[column] > most ? scores[column] : most;
#pragma omp simd reduction(+ : total)
    for (long column = 0; column < columns; column++)
        total += scores[column] = exponential(scores[column] - most);
    for (long column = 0; column < columns; column++)
        for (long i = 0; i < parts; i++)
            sums[i] += scores[column] * load(values + column * size + i * LANES);
    for (long i = 0; i < parts; i++)
        *(lanes *)(out + i * LANES) = sums[i] / total;
}

static void attend(long size, long columns, const float *q, const number *keys, const number *values, float *scores,
                   float *out) {
    switch (size) {
    case 32: attend_sized(32 / LANES, columns, q, keys, values, scores, out); break;
    case 64: attend_sized(64 / LANES, columns, q, keys, values, scores, out); break;
    default: attend_sized(size / LANES, columns, q, keys, values, scores, out);
    }
}

typedef struct {
    long layers, dim, heads, kv_heads, size, hidden, vocab;
    float eps;
    const float *rotations;     /* (context, size/2, 2) */
    const number *const *weights; /* qkv, out, up, down of each layer; the head */
} shape;

/* The rows of stream (rows, dim) are embeddings, and are spent; row i stands at positions[i] of slot slots[i], whose keys
 * and values are caches[2·layer], caches[2·layer + 1] (·, kv_heads, length, size), behind the rows of its slot that it
 * sees. Leaves logits (asked, vocab) of the last `asked` rows. */
void decode(const shape *s, long rows, long asked, long length, const long *slots, const long *positions,
            number *const *caches, float *stream, float *scratch, float *logits) {
    long all = s->heads + 2 * s->kv_heads, group = s->heads / s->kv_heads, size = s->size;
    float *x = scratch, *qkv = x + rows * s->dim, *attended = qkv + rows * all * size;
    float *up = attended + rows * s->heads * size, *gated = up + rows * 2 * s->hidden, *scores = gated + rows * s->hidden;
    float *branch = scores + length + LANES;
    factor *spare = (factor *)(branch + rows * s->dim); /* as many as the longest x has */
    const number *const *w = s->weights;
    for (long layer = 0; layer < s->layers; layer++, w += 4) {
        long unasked = layer == s->layers - 1 ? rows - asked : 0; /* rows that leave nothing but keys and values */
        normed(rows, s->dim, s->eps, layer ? branch : 0, stream, x);
        product(rows, s->dim, all * size, x, w[0], qkv, spare);
        for (long row = 0; row < rows; row++) {
            float *q = qkv + row * all * size, *k = q + s->heads * size, *v = k + s->kv_heads * size;
            turn(s->heads + s->kv_heads, size / 2, s->rotations + positions[row] * size, q);
            for (long kv = 0; kv < s->kv_heads; kv++) {
                long start = (slots[row] * s->kv_heads + kv) * length * size, here = start + positions[row] * size;
                number *keys = caches[2 * layer], *values = caches[2 * layer + 1];
                for (long i = 0; i < size; i++) {
                    keys[here + i] = narrow(k[kv * size + i]);
                    values[here + i] = narrow(v[kv * size + i]);
                }
                for (long head = kv * group; row >= unasked && head < (kv + 1) * group; head++)
                    attend(size, positions[row] + 1, q + head * size, keys + start, values + start, scores,
                           attended + (row * s->heads + head) * size);
            }
        }
        stream += unasked * s->dim, attended += unasked * s->heads * size, rows -= unasked;
        product(rows, s->heads * size, s->dim, attended, w[1], branch, spare);
        normed(rows, s->dim, s->eps, branch, stream, x);
        product(rows, s->dim, 2 * s->hidden, x, w[2], up, spare);
        for (long row = 0; row < rows; row++) {
            const float *gate = up + row * 2 * s->hidden, *value = gate + s->hidden;
            float *out = gated + row * s->hidden;
#pragma omp simd
            for (long i = 0; i < s->hidden; i++)
                out[i] = gate[i] / (1 + exponential(-gate[i])) * value[i];
        }
        product(rows, s->hidden, s->dim, gated, w[3], branch, spare);
    }
    normed(rows, s->dim, s->eps, branch, stream, x);
    product(rows, s->dim, s->vocab, x, w[0], logits, spare);
}

/* Of each row of logits (rows, vocab) a token, and its log-probability: drawn at its temperature where the running sum
 * of probabilities passes uniform, or the likeliest, at temperature 1, where that is 0. scratch (vocab). */
void draw(long rows, long vocab, const float *logits, const double *temperatures, const double *uniforms, float *scratch,
          long *tokens, float *logprobs) {
    for (long row = 0; row < rows; row++, logits += vocab) {
        float most = -INFINITY, sharp = temperatures[row] ? 1 / temperatures[row] : 1;
        long token = 0;
#pragma omp simd reduction(max : most)
        for (long i = 0; i < vocab; i++)
            most = logits[i] > most ? logits[i] : most;
        double total = 0, running = 0;
        for (long first = 0; first < vocab; first += BLOCK) {
            long end = first + BLOCK < vocab ? first + BLOCK : vocab;
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (long i = first; i < end; i++)
                sum += scratch[i] = exponential((logits[i] - most) * sharp);
            total += sum;
        }
        if (temperatures[row])
            /* strictly: one of weight zero passes nothing. Rounding may leave the end unpassed: then it is the last of any weight. */
            for (long i = 0; i < vocab; i++) {
                if (scratch[i] > 0)
                    token = i;
                if ((running += scratch[i]) > uniforms[row] * total)
                    break;
            }
        else
            while (token < vocab - 1 && logits[token] != most)
                token++;
        tokens[row] = token;
        logprobs[row] = (logits[token] - most) * sharp - log(total);
    }
}
