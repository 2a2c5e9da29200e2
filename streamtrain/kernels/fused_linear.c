/* Many steps of a linear model with one output in one call; in each, everything that is done to a row is done in one pass.
 * streamtrain/learn does the same in numpy, step by step. */

#include "kernels.h"

#include <math.h>

#define TINY 1e-30f /* added to a sum of squares that may be 0 */

typedef float fields __attribute__((vector_size(FIELDS * sizeof(float))));

/* Prepare one row, (row - shift) * scale, and multiply it with two vectors. Each product is made of eight partial sums on
 * every machine, so that the order of additions is always the same. */
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

/* The columns that a batch touches, each of them once. They are copied out of the table, so that they stand side by side
 * while the batch is learned, and copied back afterwards. In between, the STEPS of such a column in the table hold
 * -1 - its position among the copies. */
struct touched {
    const int64_t *indptr;
    const int32_t *indices;
    const float *values;
    float *table;
    int32_t *slots;           /* the column of each copy */
    int32_t *positions;       /* the copy of each entry's column */
    float *copies, *gradient; /* shape (count, FIELDS) and (count) */
    int64_t count;
};

static void take_out(struct touched *s, int64_t rows)
{
    const int64_t first = s->indptr[0], entries = s->indptr[rows] - first;
    const int32_t *indices = s->indices + first;
    float *restrict table = s->table, *restrict copies = s->copies;
    int32_t *restrict slots = s->slots, *restrict positions = s->positions, count = 0;
    for (int64_t e = 0; e < entries; e++) {
        if (e + 2 * AHEAD < entries)
            __builtin_prefetch(table + (int64_t)indices[e + 2 * AHEAD] * FIELDS, 1);
        float *at = table + (int64_t)indices[e] * FIELDS;
        fields all;
        memcpy(&all, at, sizeof all);
        memcpy(copies + (int64_t)count * FIELDS, &all, sizeof all); /* the next overwrites this, if it is not the first */
        slots[count] = indices[e];
        const int32_t there = (int32_t)(-1 - all[STEPS]), fresh = all[STEPS] >= 0;
        const int32_t k = fresh ? count : there;
        at[STEPS] = -1 - (float)k;
        positions[e] = k;
        count += fresh;
    }
    memset(s->gradient, 0, (size_t)count * sizeof(float));
    s->count = count;
}

static void put_back(const struct touched *s)
{
    for (int64_t k = 0; k < s->count; k++) {
        if (k + AHEAD < s->count)
            __builtin_prefetch(s->table + (int64_t)s->slots[k + AHEAD] * FIELDS, 1);
        memcpy(s->table + (int64_t)s->slots[k] * FIELDS, s->copies + k * FIELDS, sizeof(fields));
    }
}

static void add_margins(const struct touched *s, int64_t row, int64_t stop, float *restrict average, float *restrict learning)
{
    const int32_t *positions = s->positions - s->indptr[0];
    const float *copies = s->copies, *values = s->values;
    for (; row < stop; row++, average++, learning++) {
        float a = 0, w = 0;
        for (int64_t e = s->indptr[row]; e < s->indptr[row + 1]; e++) {
            const float *at = copies + (int64_t)positions[e] * FIELDS, value = values ? values[e] : 1;
            a += at[AVERAGE] * value;
            w += at[WEIGHT] * value;
        }
        *average += a;
        *learning += w;
    }
}

static void add_gradients(const struct touched *s, int64_t row, int64_t stop, const float *restrict slope)
{
    const int32_t *positions = s->positions - s->indptr[0];
    const float *values = s->values;
    float *gradient = s->gradient;
    for (; row < stop; row++, slope++)
        for (int64_t e = s->indptr[row]; e < s->indptr[row + 1]; e++)
            gradient[positions[e]] += *slope * (values ? values[e] : 1);
}

/* Move the weights of the touched columns by the normalised adaptive gradient, and their average. prior is added to the sums
 * of squares. */
static void descend(const struct touched *s, float share, float rate, float forget, float prior)
{
    float *restrict at = s->copies;
    const float *restrict gradient = s->gradient;
    for (int64_t k = 0; k < s->count; k++, at += FIELDS) {
        const float g = gradient[k] * share, n = at[STEPS] + 1;
        const float q = at[SQUARES] + g * g, w = at[WEIGHT] - g * (rate / sqrtf(q + prior));
        at[WEIGHT] = w;
        at[AVERAGE] += (w - at[AVERAGE]) * (forget / (n + (forget - 1))); /* the whole way at the first step */
        at[SQUARES] = q;
        at[STEPS] = n;
    }
}

/* A step of the model, all but the update: results are the scores of the batch, and the gradient, sums and squared of the
 * model. The slope of a row is the prediction of the learning weights less the target. Rows are prepared in scratch, a
 * block at a time: rows that are not written to need not go back to memory. */
static void linear_step(struct linear *model, const struct batch *batch, struct touched *touched)
{
    const int64_t width = model->width, count = batch->count;
    const float *scoring = model->scoring, *learning = model->learning, *targets = batch->targets;
    float *gradient = model->gradient;
    float slope[BLOCK] = {0}, score[BLOCK] = {0};
    lanes total = {0}, squares = {0};
    memset(model->sums, 0, (size_t)(2 * width) * sizeof(float));
    memset(gradient, 0, (size_t)(width + 1) * sizeof(float));
    for (int64_t start = 0; start < count; start += BLOCK) {
        const int64_t n = start + BLOCK < count ? BLOCK : count - start;
        float *block = batch->features + start * width, *prepared = model->scratch ? model->scratch : block;
        add_sums(block, n, width, model->centre, model->sums);
        for (int64_t r = 0; r < n; r++) {
            prepare_row(block + r * width, prepared + r * width, width, model->shift, model->scale, scoring, learning,
                        score + r, slope + r);
            score[r] += scoring[width];
            slope[r] += learning[width];
        }
        if (touched)
            add_margins(touched, start, start + n, score, slope);
        for (int64_t r = 0; model->logistic && r < n; r += LANES) {
            store(score + r, sigmoid(load(score + r)));
            store(slope + r, sigmoid(load(slope + r)));
        }
        memcpy(batch->scores + start, score, (size_t)n * sizeof(float));
        for (int64_t r = 0; r < n; r++)
            slope[r] -= targets[start + r];
        for (int64_t r = n; r < BLOCK; r++)
            slope[r] = 0;
        for (int64_t r = 0; r < BLOCK; r += LANES)
            squares += load(slope + r) * load(slope + r);
        for (int64_t r = 0; r < BLOCK; r += LANES)
            total += load(slope + r);
        add_products(prepared, n, width, slope, gradient);
        if (touched)
            add_gradients(touched, start, start + n, slope);
    }
    model->squared = 0;
    for (int k = 0; k < LANES; k++) {
        gradient[width] += total[k];
        model->squared += squares[k];
    }
}

static int finite_sum(const float *values, int64_t count)
{
    double sum = 0;
    for (int64_t j = 0; j < count; j++)
        sum += values[j];
    return sum - sum == 0;
}

/* Count a batch, and measure the power of its rows, as StreamStats does. */
static void count_batch(struct stream *stream, const struct linear *model, const struct touched *touched, int64_t rows)
{
    const double n = (double)rows;
    stream->rows += n;
    stream->batches += 1;
    stream->noise += (model->squared / (n * n) - stream->noise) / stream->batches;
    if (stream->batches > 32 && (int64_t)stream->batches % 8)
        return;
    double power = 0;
    for (int64_t j = 0; j < model->width; j++)
        power += (double)model->sums[model->width + j] * ((double)model->scale[j] * (double)model->scale[j]);
    if (touched)
        for (int64_t e = touched->indptr[0]; e < touched->indptr[rows]; e++)
            power += touched->values ? (double)touched->values[e] * touched->values[e] : 1;
    stream->measured += n;
    stream->power += (power / n + 1 - stream->power) * n / stream->measured;
}

/* Move weights by the normalised adaptive gradient, the first ones by L2 too, and their average: as Update.move does it.
 * gradient: a sum, share times which is the mean. */
void st_move(const float *restrict gradient, float *restrict weights, float *restrict average, float *restrict squares,
             int64_t count, int64_t penalised, float share, float rate, float l2, float factor, float prior)
{
    for (int64_t j = 0; j < count; j++) {
        const float g = gradient[j] * share;
        squares[j] += g * g;
        const float by = rate / sqrtf(squares[j] + prior);
        weights[j] -= g * by;
        if (l2 != 0 && j < penalised && squares[j] > 0)
            weights[j] /= 1 + l2 * by;
        average[j] += (weights[j] - average[j]) * factor;
    }
}

/* Batch after batch, each of size rows: a step, then the update of the weights, operation for operation as numpy does it.
 * The scoring weights are the average of the learning weights. sparse may be NULL. Returns the number of batches learned: a
 * batch whose sums or gradient are not finite ends the run before its update. */
int64_t st_linear_run(struct linear *model, const struct batch *rows, int64_t size, const struct sparse *sparse,
                      const struct update *update, struct stream *stream)
{
    const int64_t width = model->width;
    struct touched part, *touched = sparse ? &part : 0;
    if (sparse) {
        int32_t *slots = sparse->room;
        float *copies = (float *)sparse->room + 2 * sparse->entries;
        part = (struct touched){sparse->indptr,          sparse->indices, sparse->values,
                                sparse->table,           slots,           slots + sparse->entries,
                                copies, copies + FIELDS * sparse->entries, 0};
    }
    int64_t done = 0;
    for (int64_t start = 0; start < rows->count; start += size, done++) {
        const int64_t n = start + size < rows->count ? size : rows->count - start;
        const struct batch batch = {rows->features + start * width, rows->targets + start, rows->scores + start, n};
        if (touched) {
            part.indptr = sparse->indptr + start;
            take_out(touched, n);
        }
        linear_step(model, &batch, touched);
        if (!finite_sum(model->gradient, width + 1) || !finite_sum(model->sums + width, width)) {
            if (touched)
                put_back(touched);
            return done;
        }
        for (int64_t j = 0; j < 2 * width; j++)
            update->totals[j] += model->sums[j];
        count_batch(stream, model, touched, n);
        const float share = (float)(1 / (double)n), rate = (float)(update->learning_rate / sqrt(stream->power));
        const double nearer = update->forget / (stream->batches + update->forget - 1);
        st_move(model->gradient, model->learning, model->scoring, update->squares, width + 1, width, share, rate,
                (float)update->l2, (float)(nearer < 1 ? nearer : 1), (float)(update->prior * stream->noise + TINY));
        if (touched) {
            descend(touched, share, rate, (float)update->forget, (float)(update->sparse_prior * stream->noise + TINY));
            put_back(touched);
        }
    }
    return done;
}
