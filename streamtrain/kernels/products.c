/* Products of rows with several vectors at once: margins, gradients, sums of squares. Each sum has the order that it has in
 * fused_linear.c for a single output, whatever the number of outputs; products.py does the same in numpy.
 *
 * A margin is made of eight partial sums, of every eighth column. Where there are eight outputs or more, a vector holds one
 * partial sum of eight outputs; of the outputs that are left, 4, 2 or 1, it holds the eight partial sums of one output. Either
 * way eight sums are under way at once, as each addition waits for the one before it. */

#include "kernels.h"

typedef float half_lanes __attribute__((vector_size(4 * sizeof(float)))); /* a vector of doubles has half as many */
typedef double half_doubles __attribute__((vector_size(4 * sizeof(double))));

#define PANEL 512 /* columns whose weights are worked on together: they stay in the first cache */

/* Add the products of n columns of one row with eight outputs; stride: outputs in all. */
static inline __attribute__((always_inline)) void eight_outputs(const float *row, const float *weights, int64_t stride,
                                                                int64_t n, lanes *sum)
{
    for (int64_t j = 0; j < n; j += LANES)
        for (int k = 0; k < LANES; k++)
            sum[k] += load(weights + (j + k) * stride) * row[j + k];
}

/* Add the products of n columns of 8 / outputs rows with 4, 2 or 1 outputs; packed: their weights, shape (outputs, PANEL). */
static inline __attribute__((always_inline)) void few_outputs(const float *const *rows, const float *packed, int outputs,
                                                              int64_t n, lanes *sum)
{
    for (int64_t j = 0; j < n; j += LANES)
        for (int k = 0; k < LANES; k++)
            sum[k] += load(rows[k / outputs] + j) * load(packed + k % outputs * PANEL + j);
}

/* The margins of up to BLOCK rows of some outputs, but for the last columns, width % 8, and the intercept. */
static inline __attribute__((always_inline)) void block_margins(const float *rows, int64_t count, int64_t width,
                                                                const float *weights, int64_t all, int outputs,
                                                                float *margins)
{
    const int together = LANES / outputs; /* rows that share the eight sums */
    const int64_t whole = width - width % LANES;
    lanes held[BLOCK * LANES]; /* the sums between two panels */
    float packed[4 * PANEL];
    for (int64_t first = 0; first == 0 || first < whole; first += PANEL) {
        const int64_t n = first + PANEL < whole ? PANEL : whole - first;
        for (int k = 0; outputs < LANES && k < outputs; k++)
            for (int64_t j = 0; j < n; j++)
                packed[k * PANEL + j] = weights[(first + j) * all + k];
        for (int64_t r = 0; r < count; r += together) {
            lanes sum[LANES] = {{0}}, total = {0};
            for (int k = 0; first > 0 && k < LANES; k++)
                sum[k] = held[r * outputs + k];
            if (outputs == LANES) {
                eight_outputs(rows + r * width + first, weights + first * all, all, n, sum);
            } else {
                const float *these[LANES];
                for (int k = 0; k < together; k++) /* at the end the last row again: its results are not used */
                    these[k] = rows + (r + k < count ? r + k : count - 1) * width + first;
                few_outputs(these, packed, outputs, n, sum);
            }
            if (first + PANEL < whole) {
                for (int k = 0; k < LANES; k++)
                    held[r * outputs + k] = sum[k];
                continue;
            }
            if (outputs < LANES)
                transpose(sum);
            for (int k = 0; k < LANES; k++)
                total += sum[k];
            if (outputs == LANES || (all == 1 && r + LANES <= count))
                store(margins + r * all, total);
            else
                for (int k = 0; k < LANES && r + k / outputs < count; k++)
                    margins[(r + k / outputs) * all + k % outputs] = total[k];
        }
    }
}

/* margins = rows @ weights + intercept. rows: shape (count, width); weights: shape (width + 1, outputs), the intercept last;
 * margins: shape (count, outputs). */
void st_margins(const float *rows, int64_t count, int64_t width, const float *weights, int64_t outputs,
                float *restrict margins)
{
    for (int64_t start = 0; start < count; start += BLOCK) {
        const int64_t n = start + BLOCK < count ? BLOCK : count - start;
        const float *block = rows + start * width;
        float *into = margins + start * outputs;
        int64_t k = 0;
        for (; k + LANES <= outputs; k += LANES)
            block_margins(block, n, width, weights + k, outputs, LANES, into + k);
        for (; k + 4 <= outputs; k += 4)
            block_margins(block, n, width, weights + k, outputs, 4, into + k);
        for (; k + 2 <= outputs; k += 2)
            block_margins(block, n, width, weights + k, outputs, 2, into + k);
        for (; k < outputs; k++)
            block_margins(block, n, width, weights + k, outputs, 1, into + k);
        if (outputs == 1) {
            for (int64_t j = width - width % LANES; j < width; j++)
                for (int64_t r = 0; r < n; r++)
                    into[r] += block[r * width + j] * weights[j];
            for (int64_t r = 0; r < n; r++)
                into[r] += weights[width];
            continue;
        }
        for (int64_t r = 0; r < n; r++, into += outputs) {
            for (int64_t j = width - width % LANES; j < width; j++)
                for (k = 0; k < outputs; k++)
                    into[k] += block[r * width + j] * weights[j * outputs + k];
            for (k = 0; k < outputs; k++)
                into[k] += weights[width * outputs + k];
        }
    }
}

/* Add the products of count rows with the slopes of eight outputs to the gradients of up to eight columns. */
static inline __attribute__((always_inline)) void eight_gradients(const float *rows, int64_t count, int64_t width,
                                                                  int columns, const float *slopes, int64_t all,
                                                                  float *gradient)
{
    lanes sum[LANES];
    for (int k = 0; k < columns; k++)
        sum[k] = load(gradient + k * all);
    for (int64_t r = 0; r < count; r++)
        for (int k = 0; k < columns; k++)
            sum[k] += load(slopes + r * all) * rows[r * width + k];
    for (int k = 0; k < columns; k++)
        store(gradient + k * all, sum[k]);
}

/* The same for 4, 2 or 1 outputs and 8 / outputs vectors of columns. */
static inline __attribute__((always_inline)) void few_gradients(const float *rows, int64_t count, int64_t width,
                                                                int outputs, int vectors, const float *slopes,
                                                                int64_t all, float *gradient)
{
    lanes sum[LANES];
    for (int k = 0; k < outputs * vectors; k++) {
        float column[LANES];
        for (int i = 0; i < LANES; i++)
            column[i] = gradient[(k / outputs * LANES + i) * all + k % outputs];
        sum[k] = load(column);
    }
    for (int64_t r = 0; r < count; r++)
        for (int k = 0; k < outputs * vectors; k++)
            sum[k] += load(rows + r * width + k / outputs * LANES) * slopes[r * all + k % outputs];
    for (int k = 0; k < outputs * vectors; k++)
        for (int i = 0; i < LANES; i++)
            gradient[(k / outputs * LANES + i) * all + k % outputs] = sum[k][i];
}

static inline __attribute__((always_inline)) void block_gradients(const float *rows, int64_t count, int64_t width,
                                                                  const float *slopes, int64_t all, int outputs,
                                                                  float *gradient)
{
    const int64_t step = LANES * LANES / outputs;
    int64_t j = 0;
    for (; outputs < LANES && j + step <= width; j += step)
        few_gradients(rows + j, count, width, outputs, LANES / outputs, slopes, all, gradient + j * all);
    for (; outputs < LANES && j + LANES <= width; j += LANES)
        few_gradients(rows + j, count, width, outputs, 1, slopes, all, gradient + j * all);
    for (; outputs == LANES && j + LANES <= width; j += LANES)
        eight_gradients(rows + j, count, width, LANES, slopes, all, gradient + j * all);
    for (; outputs == LANES && j < width; j++)
        eight_gradients(rows + j, count, width, 1, slopes, all, gradient + j * all);
    for (; j < width; j++)
        for (int64_t r = 0; r < count; r++)
            for (int k = 0; k < outputs; k++)
                gradient[j * all + k] += rows[r * width + j] * slopes[r * all + k];
}

/* gradient = the sum of row * slope, row after row, and of slope: shape (width + 1, outputs). slopes: shape (count, outputs).
 * The sum of slopes is made of eight partial sums, of every eighth row. */
void st_gradients(const float *rows, int64_t count, int64_t width, const float *slopes, int64_t outputs, float *gradient)
{
    memset(gradient, 0, (size_t)((width + 1) * outputs) * sizeof(float));
    for (int64_t start = 0; start < count; start += BLOCK) {
        const int64_t n = start + BLOCK < count ? BLOCK : count - start;
        const float *block = rows + start * width, *these = slopes + start * outputs;
        int64_t k = 0;
        for (; k + LANES <= outputs; k += LANES)
            block_gradients(block, n, width, these + k, outputs, LANES, gradient + k);
        for (; k + 4 <= outputs; k += 4)
            block_gradients(block, n, width, these + k, outputs, 4, gradient + k);
        for (; k + 2 <= outputs; k += 2)
            block_gradients(block, n, width, these + k, outputs, 2, gradient + k);
        for (; k < outputs; k++)
            if (outputs == 1)
                add_products(block, n, width, these, gradient);
            else
                block_gradients(block, n, width, these + k, outputs, 1, gradient + k);
    }
    float *intercept = gradient + width * outputs;
    for (int64_t k = 0; k < outputs; k++) {
        float sum[LANES] = {0};
        for (int64_t r = 0; r < count; r++)
            sum[r % LANES] += slopes[r * outputs + k];
        for (int i = 0; i < LANES; i++)
            intercept[k] += sum[i];
    }
}

/* margins = squares of the rows @ rates + the last rate: shape (count). rates: shape (width + 1), or NULL: all are 1. */
void st_reach(const float *rows, int64_t count, int64_t width, const float *rates, float *margins)
{
    for (int64_t r = 0; r < count; r++) {
        const float *row = rows + r * width;
        lanes sum = {0};
        int64_t j = 0;
        for (; j + LANES <= width; j += LANES)
            sum += rates ? load(row + j) * load(row + j) * load(rates + j) : load(row + j) * load(row + j);
        float total = 0;
        for (int k = 0; k < LANES; k++)
            total += sum[k];
        for (; j < width; j++)
            total += row[j] * row[j] * (rates ? rates[j] : 1);
        margins[r] = total + (rates ? rates[width] : 1);
    }
}

/* The sum of squares in float64: 32 partial sums, of every 32nd number. */
double st_squares(const float *numbers, int64_t count)
{
    half_doubles sum[8] = {{0}};
    double partial[32], total = 0;
    int64_t i = 0;
    for (; i + 32 <= count; i += 32)
        for (int k = 0; k < 8; k++) {
            half_lanes x;
            memcpy(&x, numbers + i + 4 * k, sizeof x);
            const half_doubles y = __builtin_convertvector(x, half_doubles);
            sum[k] += y * y;
        }
    memcpy(partial, sum, sizeof partial);
    for (int k = 0; i < count; i++, k++)
        partial[k] += (double)numbers[i] * numbers[i];
    for (int k = 0; k < 32; k++)
        total += partial[k];
    return total;
}
