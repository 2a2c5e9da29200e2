/* The loops that touch every number of every row: permutation, moves, sums, scores. Each has a twin in numpy, in
 * __init__.py. */

#include "kernels.h"

#include <stddef.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* Move one half, modulo size, by a hash of the other half and a key. */
static inline void feistel_round(uint32_t *restrict half, const uint32_t *restrict other, int64_t count, uint32_t size,
                                 uint32_t key)
{
    for (int64_t r = 0; r < count; r++) {
        const uint32_t moved = half[r] + (uint32_t)((uint64_t)mixed(other[r] + key) * size >> 32);
        half[r] = moved >= size ? moved - size : moved;
    }
}

static inline void feistel(uint32_t *left, uint32_t *right, int64_t count, uint32_t high, uint32_t wide,
                           const uint32_t *keys, int64_t rounds)
{
    for (int64_t k = 0; k < rounds; k += 2) {
        feistel_round(left, right, count, high, keys[k]);
        feistel_round(right, left, count, wide, keys[k + 1]);
    }
}

/* Part of a permutation of 0 .. rows - 1 that is computed and not stored: positions[i] is where first + i goes. A number is
 * written as (left, right), a cell in a grid of high x wide cells, at least rows of them. In turn each half is moved by a
 * hash of the other half and a key: a Feistel network on halves of any size (Black & Rogaway 2002). A number that lands on
 * a cell beyond rows goes through the network again. */
void st_permuted(int64_t first, int64_t count, int64_t rows, int64_t high, int64_t wide, const uint32_t *keys,
                 int64_t rounds, int64_t *positions)
{
    uint32_t left[BLOCK], right[BLOCK];
    const uint32_t a = (uint32_t)high, b = (uint32_t)wide;
    uint32_t row = (uint32_t)(first / wide), column = (uint32_t)(first % wide);
    for (int64_t start = 0; start < count; start += BLOCK) {
        const int64_t n = start + BLOCK < count ? BLOCK : count - start;
        for (int64_t r = 0; r < n; r++) {
            left[r] = row;
            right[r] = column;
            column = column + 1 == b ? 0 : column + 1;
            row += column == 0;
        }
        for (int64_t r = n; r < BLOCK; r++)
            left[r] = right[r] = 0;
        feistel(left, right, BLOCK, a, b, keys, rounds);
        for (int64_t r = 0; r < n; r++) {
            while ((int64_t)left[r] * wide + right[r] >= rows)
                feistel(left + r, right + r, 1, a, b, keys, rounds);
            positions[start + r] = (int64_t)left[r] * wide + right[r];
        }
    }
}

/* The same for numbers that need not follow each other: each is replaced by where it goes. */
void st_permute(int64_t *numbers, int64_t count, int64_t rows, int64_t high, int64_t wide, const uint32_t *keys,
                int64_t rounds)
{
    uint32_t left[BLOCK], right[BLOCK];
    const uint32_t a = (uint32_t)high, b = (uint32_t)wide;
    for (int64_t start = 0; start < count; start += BLOCK) {
        const int64_t n = start + BLOCK < count ? BLOCK : count - start;
        for (int64_t r = 0; r < n; r++) {
            left[r] = (uint32_t)(numbers[start + r] / wide);
            right[r] = (uint32_t)(numbers[start + r] % wide);
        }
        for (int64_t r = n; r < BLOCK; r++)
            left[r] = right[r] = 0;
        feistel(left, right, BLOCK, a, b, keys, rounds);
        for (int64_t r = 0; r < n; r++) {
            while ((int64_t)left[r] * wide + right[r] >= rows)
                feistel(left + r, right + r, 1, a, b, keys, rounds);
            numbers[start + r] = (int64_t)left[r] * wide + right[r];
        }
    }
}

/* Columns to rows: value r of column j goes to window[positions[r] * width + offsets[j]].
 *
 * This goes block by block, so that the rows being written stay in the first cache, and eight columns at a time: columns
 * tend to start at the same offset of a memory page, and more of them side by side would evict each other from the cache. */
void st_scatter_columns(const float *const *columns, const int64_t *offsets, int64_t count, int64_t rows, float *window,
                        int64_t width, const int64_t *positions)
{
    for (int64_t start = 0; start < rows; start += BLOCK) {
        const int64_t stop = start + BLOCK < rows ? start + BLOCK : rows;
        for (int64_t r = stop; r < stop + BLOCK && r < rows; r++)
            for (int64_t b = 0; b < width; b += 16)
                __builtin_prefetch(window + positions[r] * width + b, 1);
        int64_t j = 0;
        for (; j + LANES <= count && offsets[j + LANES - 1] - offsets[j] == LANES - 1; j += LANES) {
            int64_t r = start;
            for (; r + LANES <= stop; r += LANES) {
                lanes tile[LANES];
                for (int k = 0; k < LANES; k++)
                    tile[k] = load(columns[j + k] + r);
                transpose(tile);
                for (int k = 0; k < LANES; k++)
                    store(window + positions[r + k] * width + offsets[j], tile[k]);
            }
            for (; r < stop; r++)
                for (int k = 0; k < LANES; k++)
                    window[positions[r] * width + offsets[j + k]] = columns[j + k][r];
        }
        for (; j < count; j++)
            for (int64_t r = start; r < stop; r++)
                window[positions[r] * width + offsets[j]] = columns[j][r];
    }
}

/* Rows to rows: row r, of size bytes, goes to window + positions[r] * stride + offset. */
void st_scatter_rows(const char *source, int64_t size, int64_t rows, char *window, int64_t stride, int64_t offset,
                     const int64_t *positions)
{
    for (int64_t r = 0; r < rows; r++) {
        if (r + AHEAD < rows)
            __builtin_prefetch(window + positions[r + AHEAD] * stride + offset, 1);
        if (size == 4)
            memcpy(window + positions[r] * stride + offset, source + 4 * r, 4);
        else
            memcpy(window + positions[r] * stride + offset, source + size * r, (size_t)size);
    }
}

/* Add to sums, shape (2, width), the sum and the sum of squares of each column about its centre, row after row. */
void add_sums(const float *rows, int64_t count, int64_t width, const float *centre, float *sums)
{
    int64_t j = 0;
    for (; j + 2 * LANES <= width; j += 2 * LANES) { /* two at a time, as each addition waits for the one before it */
        const lanes m0 = load(centre + j), m1 = load(centre + j + LANES);
        lanes first0 = load(sums + j), first1 = load(sums + j + LANES);
        lanes second0 = load(sums + width + j), second1 = load(sums + width + j + LANES);
        for (int64_t r = 0; r < count; r++) {
            const lanes x0 = load(rows + r * width + j) - m0, x1 = load(rows + r * width + j + LANES) - m1;
            first0 += x0;
            first1 += x1;
            second0 += x0 * x0;
            second1 += x1 * x1;
        }
        store(sums + j, first0);
        store(sums + j + LANES, first1);
        store(sums + width + j, second0);
        store(sums + width + j + LANES, second1);
    }
    for (; j + LANES <= width; j += LANES) {
        const lanes m = load(centre + j);
        lanes first = load(sums + j), second = load(sums + width + j);
        for (int64_t r = 0; r < count; r++) {
            const lanes x = load(rows + r * width + j) - m;
            first += x;
            second += x * x;
        }
        store(sums + j, first);
        store(sums + width + j, second);
    }
    for (; j < width; j++) {
        float first = sums[j], second = sums[width + j];
        for (int64_t r = 0; r < count; r++) {
            const float x = rows[r * width + j] - centre[j];
            first += x;
            second += x * x;
        }
        sums[j] = first;
        sums[width + j] = second;
    }
}

/* Add the sum of slope[r] * row r to gradient, shape (width). */
void add_products(const float *rows, int64_t count, int64_t width, const float *slope, float *gradient)
{
    int64_t j = 0;
    for (; j + 2 * LANES <= width; j += 2 * LANES) {
        lanes sum0 = load(gradient + j), sum1 = load(gradient + j + LANES);
        for (int64_t r = 0; r < count; r++) {
            sum0 += load(rows + r * width + j) * slope[r];
            sum1 += load(rows + r * width + j + LANES) * slope[r];
        }
        store(gradient + j, sum0);
        store(gradient + j + LANES, sum1);
    }
    for (; j + LANES <= width; j += LANES) {
        lanes sum = load(gradient + j);
        for (int64_t r = 0; r < count; r++)
            sum += load(rows + r * width + j) * slope[r];
        store(gradient + j, sum);
    }
    for (; j < width; j++) {
        float sum = gradient[j];
        for (int64_t r = 0; r < count; r++)
            sum += rows[r * width + j] * slope[r];
        gradient[j] = sum;
    }
}

void st_sums(const float *rows, int64_t count, int64_t width, const float *centre, float *sums)
{
    memset(sums, 0, (size_t)(2 * width) * sizeof(float));
    for (int64_t start = 0; start < count; start += BLOCK)
        add_sums(rows + start * width, start + BLOCK < count ? BLOCK : count - start, width, centre, sums);
}

/* rows = (rows - shift) * scale, in place. */
void st_affine(float *rows, int64_t count, int64_t width, const float *shift, const float *scale)
{
    for (int64_t r = 0; r < count; r++) {
        float *row = rows + r * width;
        int64_t j = 0;
        for (; j + LANES <= width; j += LANES)
            store(row + j, (load(row + j) - load(shift + j)) * load(scale + j));
        for (; j < width; j++)
            row[j] = (row[j] - shift[j]) * scale[j];
    }
}

/* Scores of two classes: count each row in counts[class of its target][bin of its odds], shape (2, bins), and multiply the
 * probabilities that were predicted for the classes of the targets: products, shape (count / PRODUCT_ROWS + 1). Python
 * takes their logarithms: not every compiler links the same log(). */
void st_binary_scores(const float *targets, const float *scores, int64_t count, float least, int64_t shift,
                      int64_t first_bin, int64_t bins, int64_t *counts, double *products)
{
    double product = 1;
    for (int64_t r = 0; r < count; r++) {
        float score = scores[r] < least ? least : scores[r];
        score = score > 1 - least ? 1 - least : score;
        const float other = 1 - score, odds = score / other;
        const int second = targets[r] > 0;
        int32_t bits;
        memcpy(&bits, &odds, sizeof bits);
        int64_t bin = (bits >> shift) - first_bin;
        bin = bin < 0 ? 0 : bin >= bins ? bins - 1 : bin;
        counts[bin + second * bins]++;
        product *= second ? score : other;
        if (r % PRODUCT_ROWS == PRODUCT_ROWS - 1) {
            *products++ = product;
            product = 1;
        }
    }
    *products = product;
}

/* Whether the processor and the operating system can run the library that is compiled with -mavx2 -mbmi2. Asked of the
 * processor, as Intel's manual says (volume 1, 14.3): __builtin_cpu_supports always says no where zig compiles it. */
int st_has_avx2(void)
{
#if defined(__x86_64__)
    const unsigned both = bit_AVX2 | bit_BMI2;
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    const int saves_vectors = (low & 6) == 6; /* the operating system keeps the upper halves of vectors too */
    return saves_vectors && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & both) == both;
#else
    return 0;
#endif
}

#define CONSTANT(name) {#name, name}
#define SIZE(type) {"sizeof " #type, sizeof(struct type)}
#define FIELD(type, name) {#type "." #name, offsetof(struct type, name)}

/* What Python reads from the library, or compares with its own; ends with a name that is NULL. */
const struct number st_numbers[] = {
    CONSTANT(BLOCK), CONSTANT(LANES), CONSTANT(PRODUCT_ROWS), CONSTANT(BUCKET), CONSTANT(HASH_STEP), CONSTANT(IN_WORD),
    CONSTANT(PAD), CONSTANT(LEAST_CELLS), CONSTANT(NAME_BYTES), CONSTANT(INT32), CONSTANT(INT64), CONSTANT(FLOAT32),
    CONSTANT(FLOAT64), CONSTANT(EXP), CONSTANT(EXPM1), CONSTANT(LOG), CONSTANT(LOG1P), CONSTANT(SINE),
    CONSTANT(COSINE), CONSTANT(WEIGHT), CONSTANT(AVERAGE), CONSTANT(SQUARES), CONSTANT(STEPS), CONSTANT(FIELDS),
    FIELD(linear, width), FIELD(linear, logistic), FIELD(linear, centre), FIELD(linear, shift), FIELD(linear, scale),
    FIELD(linear, scoring), FIELD(linear, learning), FIELD(linear, scratch), FIELD(linear, gradient),
    FIELD(linear, sums), FIELD(linear, squared),
    FIELD(batch, features), FIELD(batch, targets), FIELD(batch, scores), FIELD(batch, count),
    FIELD(sparse, indptr), FIELD(sparse, indices), FIELD(sparse, values), FIELD(sparse, table), FIELD(sparse, room),
    FIELD(sparse, entries),
    FIELD(update, learning_rate), FIELD(update, l2), FIELD(update, forget), FIELD(update, prior),
    FIELD(update, sparse_prior), FIELD(update, squares), FIELD(update, totals),
    FIELD(stream, rows), FIELD(stream, batches), FIELD(stream, measured), FIELD(stream, power), FIELD(stream, noise),
    SIZE(linear), SIZE(batch), SIZE(sparse), SIZE(update), SIZE(stream),
    {0, 0},
};
