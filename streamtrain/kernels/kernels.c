/* The loops that touch every number of every row. Plain C, called through ctypes: no Python in here, no state, no
 * allocation. Each has a twin in numpy (see __init__.py). Floating-point operations stand in one order whatever the machine, and
 * contraction to fused multiply-add is off, so that results do not depend on what a processor can do. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define AHEAD 32 /* rows: how far ahead memory is asked for */
#define BLOCK 64 /* rows that are worked on together */
#define TINY 1e-30f /* added to a sum of squares that may be 0 */

#define LANES 8
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

typedef int32_t picks __attribute__((vector_size(LANES * sizeof(int32_t))));

static inline lanes load(const float *from)
{
    lanes x;
    memcpy(&x, from, sizeof x);
    return x;
}

static inline void store(float *to, lanes x)
{
    memcpy(to, &x, sizeof x);
}

/* Turn a tile of 8 x 8 numbers: three rounds, each of which swaps halves of one size. */
static inline void transpose(lanes *t)
{
    lanes u[LANES];
    for (int k = 0; k < LANES; k += 2) {
        u[k] = __builtin_shuffle(t[k], t[k + 1], (picks){0, 8, 2, 10, 4, 12, 6, 14});
        u[k + 1] = __builtin_shuffle(t[k], t[k + 1], (picks){1, 9, 3, 11, 5, 13, 7, 15});
    }
    for (int k = 0; k < LANES; k += 4)
        for (int i = k; i < k + 2; i++) {
            t[i] = __builtin_shuffle(u[i], u[i + 2], (picks){0, 1, 8, 9, 4, 5, 12, 13});
            t[i + 2] = __builtin_shuffle(u[i], u[i + 2], (picks){2, 3, 10, 11, 6, 7, 14, 15});
        }
    for (int i = 0; i < 4; i++) {
        const lanes low = t[i], high = t[i + 4];
        t[i] = __builtin_shuffle(low, high, (picks){0, 1, 2, 3, 8, 9, 10, 11});
        t[i + 4] = __builtin_shuffle(low, high, (picks){4, 5, 6, 7, 12, 13, 14, 15});
    }
}

static inline uint32_t hashed(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x *= 0x846ca68bU;
    return x ^ x >> 16;
}

/* One half, below size, moved by the other; the upper bits of the hash times size choose by how much. */
static inline void feistel_round(uint32_t *restrict half, const uint32_t *restrict other, int64_t count, uint32_t size, uint32_t key)
{
    for (int64_t r = 0; r < count; r++) {
        const uint32_t moved = half[r] + (uint32_t)((uint64_t)hashed(other[r] + key) * size >> 32);
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

/* A permutation of 0 .. rows - 1 that is computed, not stored: where each of count values from first on goes. A value is
 * written as (left, right) on a grid of high x wide cells, at least rows of them; in turn each half is moved by a hash of
 * the other and a key, a Feistel network on halves of any size (Black & Rogaway 2002); what lands on a cell beyond rows
 * goes through again. The hash is lowbias32 (Wellons 2018). */
void st_places(int64_t first, int64_t count, int64_t rows, int64_t high, int64_t wide, const uint32_t *keys,
               int64_t rounds, int64_t *places)
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
            places[start + r] = (int64_t)left[r] * wide + right[r];
        }
    }
}

/* Columns to rows: value r of column j goes to window[places[r] * width + slots[j]].
 *
 * Block by block, so that the rows being written stay in the first cache, and eight columns at a time: columns tend to
 * start at the same offset of a page, and more of them side by side would evict each other from it. */
void st_scatter_columns(const float *const *columns, const int64_t *slots, int64_t count, int64_t rows, float *window,
                        int64_t width, const int64_t *places)
{
    for (int64_t start = 0; start < rows; start += BLOCK) {
        const int64_t stop = start + BLOCK < rows ? start + BLOCK : rows;
        for (int64_t r = stop; r < stop + BLOCK && r < rows; r++)
            for (int64_t b = 0; b < width; b += 16)
                __builtin_prefetch(window + places[r] * width + b, 1);
        int64_t j = 0;
        for (; j + LANES <= count && slots[j + LANES - 1] - slots[j] == LANES - 1; j += LANES) {
            int64_t r = start;
            for (; r + LANES <= stop; r += LANES) {
                lanes tile[LANES];
                for (int k = 0; k < LANES; k++)
                    tile[k] = load(columns[j + k] + r);
                transpose(tile);
                for (int k = 0; k < LANES; k++)
                    store(window + places[r + k] * width + slots[j], tile[k]);
            }
            for (; r < stop; r++)
                for (int k = 0; k < LANES; k++)
                    window[places[r] * width + slots[j + k]] = columns[j + k][r];
        }
        for (; j < count; j++)
            for (int64_t r = start; r < stop; r++)
                window[places[r] * width + slots[j]] = columns[j][r];
    }
}

/* Rows to rows: row r of size bytes goes to window + places[r] * stride + offset. */
void st_scatter_rows(const char *source, int64_t size, int64_t rows, char *window, int64_t stride, int64_t offset,
                     const int64_t *places)
{
    for (int64_t r = 0; r < rows; r++) {
        if (r + AHEAD < rows)
            __builtin_prefetch(window + places[r + AHEAD] * stride + offset, 1);
        if (size == 4)
            memcpy(window + places[r] * stride + offset, source + 4 * r, 4);
        else
            memcpy(window + places[r] * stride + offset, source + size * r, (size_t)size);
    }
}

/* Sums and sums of squares of the columns about a centre, row after row, added to sums, shape (2, width). */
static void add_sums(const float *rows, int64_t count, int64_t width, const float *centre, float *sums)
{
    int64_t j = 0;
    for (; j + 2 * LANES <= width; j += 2 * LANES) { /* two at a time: an addition waits for the one before it */
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

/* One row: (row - shift) * scale, and its products with two vectors. Eight partial sums each, whatever the machine, so
 * that the order of additions is always the same. */
static inline void prepare_row(const float *row, float *prepared, int64_t width, const float *shift,
                               const float *scale, const float *u, const float *v, float *by_u, float *by_v)
{
    lanes sum_u = {0}, sum_v = {0};
    int64_t j = 0;
    for (; j + LANES <= width; j += LANES) {
        const lanes x = (load(row + j) - load(shift + j)) * load(scale + j);
        store(prepared + j, x);
        sum_u += x * load(u + j);
        sum_v += x * load(v + j);
    }
    float a = 0, b = 0;
    for (int k = 0; k < LANES; k++) {
        a += sum_u[k];
        b += sum_v[k];
    }
    for (; j < width; j++) {
        const float x = (row[j] - shift[j]) * scale[j];
        prepared[j] = x;
        a += x * u[j];
        b += x * v[j];
    }
    *by_u = a;
    *by_v = b;
}

/* 1 / (1 + exp(-x)) in each lane. exp(y), y = k ln 2 + r: 2^k times a polynomial of degree 6 in r (relative error below
 * 3e-7). Adding 1.5 * 2^23 leaves k in the low bits of the sum. NaN stays NaN. */
static inline lanes sigmoid(lanes x)
{
    const lanes most = (lanes){0} + 80, round = (lanes){0} + 12582912.0f;
    const picks high = x > most, low = x < -most;
    picks held = ((picks)x & ~high & ~low) | ((picks)most & high) | ((picks)-most & low);
    const lanes y = -(lanes)held;
    const lanes sum = y * 1.44269504f + round, k = sum - round;
    const lanes r = (y - k * 0.693359375f) + k * 2.12194440e-4f;
    lanes e = r * 1.3888889e-3f + 8.3333333e-3f;
    e = e * r + 4.1666667e-2f;
    e = e * r + 1.6666667e-1f;
    e = e * r + 0.5f;
    e = e * r + 1;
    e = e * r + 1;
    const picks power = ((picks)sum - (picks)round + 127) << 23;
    return 1 / (1 + e * (lanes)power);
}

/* Adds the sum of slope[r] * row r to gradient, shape (width,). */
static void add_products(const float *rows, int64_t count, int64_t width, const float *slope, float *gradient)
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

enum { WEIGHT, AVERAGE, SQUARES, STEPS, FIELDS };

typedef float fields __attribute__((vector_size(FIELDS * sizeof(float))));

/* The sparse part of rows: compressed sparse rows, values NULL where all are 1; and what is learned for each of its columns, a
 * row of table. The columns that a batch has, count of them, are taken out of the table and stand side by side, each once, while
 * the batch is learned: slots says which they are, place where each entry's column stands. Meanwhile the steps of a column
 * in the table are -1 - its place. */
struct sparse {
    const int64_t *indptr;
    const int32_t *indices;
    const float *values;
    float *table;
    int32_t *slots, *place;
    float *taken, *gradient;
    int64_t count;
};

static void take_out(struct sparse *s, int64_t rows)
{
    const int64_t first = s->indptr[0], entries = s->indptr[rows] - first;
    const int32_t *indices = s->indices + first;
    float *restrict table = s->table, *restrict taken = s->taken;
    int32_t *restrict slots = s->slots, *restrict place = s->place, count = 0;
    for (int64_t e = 0; e < entries; e++) {
        if (e + 2 * AHEAD < entries)
            __builtin_prefetch(table + (int64_t)indices[e + 2 * AHEAD] * FIELDS, 1);
        float *at = table + (int64_t)indices[e] * FIELDS;
        fields all;
        memcpy(&all, at, sizeof all);
        memcpy(taken + (int64_t)count * FIELDS, &all, sizeof all); /* overwritten by the next, if this one is there already */
        slots[count] = indices[e];
        const int32_t there = (int32_t)(-1 - all[STEPS]), fresh = all[STEPS] >= 0;
        const int32_t k = fresh ? count : there;
        at[STEPS] = -1 - (float)k;
        place[e] = k;
        count += fresh;
    }
    memset(s->gradient, 0, (size_t)count * sizeof(float));
    s->count = count;
}

static void put_back(const struct sparse *s)
{
    for (int64_t k = 0; k < s->count; k++) {
        if (k + AHEAD < s->count)
            __builtin_prefetch(s->table + (int64_t)s->slots[k + AHEAD] * FIELDS, 1);
        memcpy(s->table + (int64_t)s->slots[k] * FIELDS, s->taken + k * FIELDS, sizeof(fields));
    }
}

static void add_margins(const struct sparse *s, int64_t row, int64_t stop, float *restrict average, float *restrict learning)
{
    const int32_t *place = s->place - s->indptr[0];
    const float *taken = s->taken, *values = s->values;
    for (; row < stop; row++, average++, learning++) {
        float a = 0, w = 0;
        for (int64_t e = s->indptr[row]; e < s->indptr[row + 1]; e++) {
            const float *at = taken + (int64_t)place[e] * FIELDS, value = values ? values[e] : 1;
            a += at[AVERAGE] * value;
            w += at[WEIGHT] * value;
        }
        *average += a;
        *learning += w;
    }
}

static void add_gradients(const struct sparse *s, int64_t row, int64_t stop, const float *restrict slope)
{
    const int32_t *place = s->place - s->indptr[0];
    const float *values = s->values;
    float *gradient = s->gradient;
    for (; row < stop; row++, slope++)
        for (int64_t e = s->indptr[row]; e < s->indptr[row + 1]; e++)
            gradient[place[e]] += *slope * (values ? values[e] : 1);
}

/* The step of the normalised adaptive gradient, and of the average, for the columns of the batch. more is added to the sums
 * of squares. */
static void descend(const struct sparse *s, float share, float rate, float most, float more)
{
    float *restrict at = s->taken;
    const float *restrict gradient = s->gradient;
    for (int64_t k = 0; k < s->count; k++, at += FIELDS) {
        const float g = gradient[k] * share, n = at[STEPS] + 1;
        const float q = at[SQUARES] + g * g, w = at[WEIGHT] - g * (rate / sqrtf(q + more));
        at[WEIGHT] = w;
        at[AVERAGE] += (w - at[AVERAGE]) * (most / (n + (most - 1))); /* the whole way at the first step */
        at[SQUARES] = q;
        at[STEPS] = n;
    }
}

/* A step of a linear model with one output, all but the update. The rows are prepared a block at a time in scratch, shape
 * (64, width), or in place where that is 0: rows that are not written to need not go back to memory. scores gets what the
 * weights u predict; gradient, shape (width + 1,), the sum of slope * row and of slope, where slope is what the weights v predict
 * less the target, times the row's weight; sums the statistics of the raw rows, as in st_sums. logistic: whether a
 * prediction is the sigmoid of the margin, or the margin itself. The intercepts follow the weights in u and v. */
static void linear_step(float *rows, int64_t count, int64_t width, const float *shift, const float *scale,
                        const float *centre, const float *targets, const float *weights, const float *u, const float *v,
                        int64_t logistic, float *scratch, float *scores, float *gradient, float *sums, struct sparse *s,
                        double *squared)
{
    float slope[BLOCK] = {0}, score[BLOCK] = {0};
    lanes total = {0}, squares = {0};
    memset(sums, 0, (size_t)(2 * width) * sizeof(float));
    memset(gradient, 0, (size_t)(width + 1) * sizeof(float));
    for (int64_t start = 0; start < count; start += BLOCK) {
        const int64_t n = start + BLOCK < count ? BLOCK : count - start;
        float *block = rows + start * width, *prepared = scratch ? scratch : block;
        add_sums(block, n, width, centre, sums);
        for (int64_t r = 0; r < n; r++) {
            prepare_row(block + r * width, prepared + r * width, width, shift, scale, u, v, score + r, slope + r);
            score[r] += u[width];
            slope[r] += v[width];
        }
        if (s)
            add_margins(s, start, start + n, score, slope);
        for (int64_t r = 0; logistic && r < n; r += LANES) {
            store(score + r, sigmoid(load(score + r)));
            store(slope + r, sigmoid(load(slope + r)));
        }
        memcpy(scores + start, score, (size_t)n * sizeof(float));
        for (int64_t r = 0; r < n; r++)
            slope[r] = (slope[r] - targets[start + r]) * (weights ? weights[start + r] : 1);
        for (int64_t r = n; r < BLOCK; r++)
            slope[r] = 0;
        for (int64_t r = 0; r < BLOCK; r += LANES)
            squares += load(slope + r) * load(slope + r);
        for (int64_t r = 0; r < BLOCK; r += LANES)
            total += load(slope + r);
        add_products(prepared, n, width, slope, gradient);
        if (s)
            add_gradients(s, start, start + n, slope);
    }
    *squared = 0;
    for (int k = 0; k < LANES; k++) {
        gradient[width] += total[k];
        *squared += squares[k];
    }
}

void st_linear_step(float *rows, int64_t count, int64_t width, const float *shift, const float *scale,
                    const float *centre, const float *targets, const float *weights, const float *u, const float *v,
                    int64_t logistic, float *scratch, float *scores, float *gradient, float *sums, double *squared)
{
    linear_step(rows, count, width, shift, scale, centre, targets, weights, u, v, logistic, scratch, scores, gradient,
                sums, 0, squared);
}

static int finite_sum(const float *values, int64_t count)
{
    double sum = 0;
    for (int64_t j = 0; j < count; j++)
        sum += values[j];
    return sum - sum == 0;
}

/* Batch after batch: st_linear_step, then the step of the normalised adaptive gradient, of L2 and of the average, as
 * Update.move does them, operation for operation. clock: rows, batches, rows measured, power, noise; as in learn.StreamStats.
 * block, shape (2, width), gets the sums of each batch. Stops before the update of a batch whose sums or gradient are not
 * finite; returns the number of batches learned. */
int64_t st_linear_run(float *rows, int64_t count, int64_t width, int64_t batch, const float *shift, const float *scale,
                      const float *centre, const float *targets, float *average, float *learning, float *squares,
                      int64_t logistic, double step, double l2, double forget_after, double *clock, double *block,
                      float *scratch, float *scores, float *gradient, float *sums, const int64_t *indptr,
                      const int32_t *indices, const float *values, float *table, void *space, int64_t entries, double least,
                      double prior, double *squared)
{
    int32_t *slots = space;
    struct sparse part = {indptr,          indices, values, table, slots, slots + entries, (float *)space + 2 * entries,
                          (float *)space + (2 + FIELDS) * entries, 0};
    struct sparse *s = indptr ? &part : 0;
    int64_t done = 0;
    for (int64_t start = 0; start < count; start += batch, done++) {
        const int64_t n = start + batch < count ? batch : count - start;
        part.indptr = indptr ? indptr + start : 0;
        if (s)
            take_out(s, n);
        linear_step(rows + start * width, n, width, shift, scale, centre, targets + start, 0, average, learning,
                    logistic, scratch, scores + start, gradient, sums, s, squared);
        if (!finite_sum(gradient, width + 1) || !finite_sum(sums + width, width)) {
            if (s)
                put_back(s);
            return done;
        }
        for (int64_t j = 0; j < 2 * width; j++)
            block[j] += sums[j];
        clock[0] += (double)n;
        clock[1] += 1;
        clock[4] += (*squared / ((double)n * (double)n) - clock[4]) / clock[1];
        if (clock[1] <= 32 || (int64_t)clock[1] % 8 == 0) {
            double power = 0;
            for (int64_t j = 0; j < width; j++)
                power += (double)sums[width + j] * ((double)scale[j] * (double)scale[j]);
            for (int64_t e = s ? s->indptr[0] : 0; s && e < s->indptr[n]; e++)
                power += values ? (double)values[e] * values[e] : 1;
            clock[2] += (double)n;
            clock[3] += (power / (double)n + 1 - clock[3]) * (double)n / clock[2];
        }
        const float share = (float)(1 / (double)n), decay = (float)l2, rate = (float)(step / sqrt(clock[3]));
        const double nearer = forget_after / (clock[1] + forget_after - 1);
        const float factor = (float)(nearer < 1 ? nearer : 1), more = (float)(least * clock[4] + TINY);
        for (int64_t j = 0; j <= width; j++) {
            const float g = gradient[j] * share;
            squares[j] += g * g;
            const float by = rate / sqrtf(squares[j] + more);
            learning[j] -= g * by;
            if (l2 != 0 && j < width && squares[j] > 0)
                learning[j] /= 1 + decay * by;
            average[j] += (learning[j] - average[j]) * factor;
        }
        if (s) {
            descend(s, share, rate, (float)forget_after, (float)(prior * clock[4] + TINY));
            put_back(s);
        }
    }
    return done;
}

/* Scores of two classes. Counts each row in counts[class of its target][bin of its odds], as metrics.Classification does;
 * returns the log-likelihood. The logarithm is taken of products of 32 probabilities, which a double holds. */
double st_binary_scores(const float *targets, const float *scores, int64_t count, float least, int64_t shift,
                        int64_t first_bin, int64_t bins, int64_t *counts)
{
    double sum = 0, product = 1;
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
        if (r % 32 == 31) {
            sum += log(product);
            product = 1;
        }
    }
    return sum + log(product);
}

/* Whether the library that was compiled for AVX2 can run here. */
int st_has_avx2(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#else
    return 0;
#endif
}

#include "hashing.c"
#include "crash.c"
#include "ngrams.c"
