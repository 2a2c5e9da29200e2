/* What the compiled kernels share: types, the structs that Python fills in, and every function that Python calls.
 *
 * compiled.py mirrors the structs and declares the functions. When it loads the library it compares the mirror with
 * st_numbers, so a library that was built from other sources is not used.
 *
 * Plain C, called through ctypes: nothing here knows Python or allocates memory, and only crash.c keeps a state. All
 * floating-point operations have a fixed order, vectors always have 8 lanes, contraction to fused multiply-add is off
 * (-ffp-contract=off), and nothing calls the mathematical library. So GCC, clang and zig, with AVX2 or without, give the
 * same bits. */

#ifndef STREAMTRAIN_KERNELS_H
#define STREAMTRAIN_KERNELS_H

#include <stdint.h>
#include <string.h>

#define AHEAD 32        /* rows: how far ahead memory is prefetched */
#define BLOCK 64        /* rows that are worked on together */
#define LANES 8         /* numbers in a vector */
#define PRODUCT_ROWS 32 /* probabilities that are multiplied before a logarithm is taken: a double holds their product */

#define BUCKET 8              /* cells of a vocabulary that are searched together: 64 bytes, one cache line */
#define HASH_STEP 0x9e3779b9U /* added between the words of a hash: 2^32 divided by the golden ratio */
#define IN_WORD 1             /* added to the symbol of a code point that is part of a word */
#define PAD (2 * ' ')         /* the symbol before and after a run of characters */
#define LEAST_CELLS 256       /* cells of a table of n-grams, at least */
#define NAME_BYTES 512        /* of the name of a read, with the 0 at its end */

enum number_kind { INT32, INT64, FLOAT32, FLOAT64 };        /* what st_floats reads */
enum function { EXP, EXPM1, LOG, LOG1P, SINE, COSINE };      /* what st_function computes */
enum column_state { WEIGHT, AVERAGE, SQUARES, STEPS, FIELDS }; /* what a learner keeps for each sparse column */

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t lane_bits __attribute__((vector_size(LANES * sizeof(int32_t))));

/* A linear model with one output, and the buffers of its steps. */
struct linear {
    int64_t width;                      /* dense columns */
    int64_t logistic;                   /* 1: a prediction is the sigmoid of the margin; 0: the margin itself */
    const float *centre, *shift, *scale; /* of the preparation, shape (width) */
    float *scoring, *learning;          /* two sets of weights, shape (width + 1), the intercept last */
    float *scratch;                     /* prepared rows, shape (BLOCK, width); NULL: rows are prepared in place */
    float *gradient;                    /* result: sum of slope * row, and of slope; shape (width + 1) */
    float *sums;                        /* result: sums and sums of squares about the centre; shape (2, width) */
    double squared;                     /* result: sum of the squared slopes */
};

/* Rows to learn from. */
struct batch {
    float *features;      /* raw, shape (count, width); may be prepared in place */
    const float *targets; /* shape (count) */
    float *scores;        /* result: predictions of the scoring weights, shape (count) */
    int64_t count;
};

/* The sparse part of rows, as compressed sparse rows, and what is learned for each of its columns. */
struct sparse {
    const int64_t *indptr;  /* shape (count + 1) */
    const int32_t *indices; /* the column of each entry */
    const float *values;    /* the value of each entry, or NULL where all are 1 */
    float *table;           /* shape (columns, FIELDS) */
    void *room;             /* 4 * (2 + FIELDS + 1) bytes for each entry of a batch */
    int64_t entries;        /* entries of a batch that there is room for */
};

/* How weights move: see streamtrain/learn/update.py. */
struct update {
    double learning_rate, l2, forget;
    double prior, sparse_prior; /* times the noise of the gradient: added to the squares of dense and of sparse weights */
    float *squares;             /* shape (width + 1) */
    double *totals;             /* gets the sums of each batch, shape (2, width) */
};

/* What the learning rate needs to know of the rows so far: see StreamStats in streamtrain/learn. */
struct stream {
    double rows, batches, measured, power, noise;
};

/* A constant of this header, or the offset of a field of a struct, by name. */
struct number {
    const char *name;
    int64_t value;
};

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

/* Transpose a tile of 8 x 8 numbers, in three rounds: each swaps parts of 1, 2 or 4 numbers between pairs of rows. */
static inline void transpose(lanes *t)
{
    lanes u[LANES];
    for (int k = 0; k < LANES; k += 2) {
        u[k] = __builtin_shufflevector(t[k], t[k + 1], 0, 8, 2, 10, 4, 12, 6, 14);
        u[k + 1] = __builtin_shufflevector(t[k], t[k + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
    for (int k = 0; k < LANES; k += 4)
        for (int i = k; i < k + 2; i++) {
            t[i] = __builtin_shufflevector(u[i], u[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            t[i + 2] = __builtin_shufflevector(u[i], u[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        const lanes low = t[i], high = t[i + 4];
        t[i] = __builtin_shufflevector(low, high, 0, 1, 2, 3, 8, 9, 10, 11);
        t[i + 4] = __builtin_shufflevector(low, high, 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* exp(y) for y from -87 to 80: with y = k ln 2 + r it is 2^k times a polynomial of degree 6 in r (relative error below 3e-7).
 * Adding 1.5 * 2^23 to a number leaves its integer part in the low bits of the sum. */
static inline lanes power_of_e(lanes y)
{
    const lanes round = (lanes){0} + 12582912.0f;
    const lanes sum = y * 1.44269504f + round, k = sum - round;
    const lanes r = (y - k * 0.693359375f) + k * 2.12194440e-4f;
    lanes e = r * 1.3888889e-3f + 8.3333333e-3f;
    e = e * r + 4.1666667e-2f;
    e = e * r + 1.6666667e-1f;
    e = e * r + 0.5f;
    e = e * r + 1;
    e = e * r + 1;
    const lane_bits power = ((lane_bits)sum - (lane_bits)round + 127) << 23;
    return e * (lanes)power;
}

/* 1 / (1 + exp(-x)) in each lane. NaN stays NaN. */
static inline lanes sigmoid(lanes x)
{
    const lanes most = (lanes){0} + 80;
    const lane_bits high = x > most, low = x < -most;
    const lane_bits held = ((lane_bits)x & ~high & ~low) | ((lane_bits)most & high) | ((lane_bits)-most & low);
    return 1 / (1 + power_of_e(-(lanes)held));
}

/* lowbias32 (Wellons 2018): a bijection of 32 bits. */
static inline uint32_t mixed(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x *= 0x846ca68bU;
    return x ^ x >> 16;
}

/* The hash of a value is never 0: that marks an empty cell. */
static inline uint32_t not_zero(uint32_t hash)
{
    return hash ? hash : 1;
}

/* kernels.c */
extern const struct number st_numbers[];
int st_has_avx2(void);
void st_permuted(int64_t first, int64_t count, int64_t rows, int64_t high, int64_t wide, const uint32_t *keys,
                 int64_t rounds, int64_t *positions);
void st_permute(int64_t *numbers, int64_t count, int64_t rows, int64_t high, int64_t wide, const uint32_t *keys,
                int64_t rounds);
void st_scatter_columns(const float *const *columns, const int64_t *offsets, int64_t count, int64_t rows, float *window,
                        int64_t width, const int64_t *positions);
void st_scatter_rows(const char *source, int64_t size, int64_t rows, char *window, int64_t stride, int64_t offset,
                     const int64_t *positions);
void st_sums(const float *rows, int64_t count, int64_t width, const float *centre, float *sums);
void st_affine(float *rows, int64_t count, int64_t width, const float *shift, const float *scale);
void st_binary_scores(const float *targets, const float *scores, int64_t count, float least, int64_t shift,
                      int64_t first_bin, int64_t bins, int64_t *counts, double *products);

/* kernels.c, for the other files here */
__attribute__((visibility("hidden"))) void add_sums(const float *rows, int64_t count, int64_t width,
                                                    const float *centre, float *sums);
__attribute__((visibility("hidden"))) void add_products(const float *rows, int64_t count, int64_t width,
                                                        const float *slope, float *gradient);

/* fused_linear.c */
void st_move(const float *gradient, float *weights, float *average, float *squares, int64_t count, int64_t penalised,
             float share, float rate, float l2, float factor, float prior);
int64_t st_linear_run(struct linear *model, const struct batch *rows, int64_t size, const struct sparse *sparse,
                      const struct update *update, struct stream *stream);

/* functions.c */
void st_function(int64_t function, const double *numbers, int64_t count, double *values);
void st_sigmoid(float *numbers, int64_t count);
int64_t st_softmax(float *margins, int64_t count, int64_t classes, const int32_t *targets);

/* products.c */
void st_margins(const float *rows, int64_t count, int64_t width, const float *weights, int64_t outputs, float *margins);
void st_gradients(const float *rows, int64_t count, int64_t width, const float *slopes, int64_t outputs, float *gradient);
void st_reach(const float *rows, int64_t count, int64_t width, const float *rates, float *margins);
double st_squares(const float *numbers, int64_t count);

/* hashing.c */
void st_hash_bytes(const uint8_t *data, const int64_t *offsets, int64_t rows, uint32_t seed, uint32_t *hashes);
void st_floats(const void *values, int64_t kind, const uint8_t *valid, int64_t offset, int64_t rows, float *floats);
void st_take(const uint32_t *hashes, const int32_t *codes, const uint8_t *valid, int64_t offset, int64_t rows,
             uint32_t null, uint32_t *taken);
int64_t st_entries(float *features, int64_t rows, int64_t width, const float *fill, const uint32_t *missing,
                   const uint32_t *hashes, int64_t count, int64_t categories, const int32_t *crosses, int64_t crossed,
                   const uint32_t *seeds, const int64_t *sizes, int64_t *indptr, uint32_t *entries);
void st_find_slots(const uint32_t *hashes, int64_t count, uint32_t *cells, int64_t size, int64_t claim, int64_t most,
                   int64_t sharing, int64_t *used, int32_t *slots);
void st_scale_entries(const int32_t *slots, float *values, int64_t count, double *table, const uint8_t *scaled,
                      int64_t learn);

/* ngrams.c */
int64_t st_ngrams(const uint8_t *data, const int64_t *starts, const int32_t *sizes, int64_t row, int64_t rows,
                  const int64_t *lengths, const uint32_t *seeds, const uint32_t *symbols, const double *logarithms,
                  int64_t *indptr, uint32_t *hashes, float *values, int64_t room, void *table);

/* crash.c */
int st_enter_read(const char *name, int64_t nbytes, int own);
void st_leave_read(int number);
void st_answer_crashes(const char *before, const char *report);
void st_expect_shortage(int code);

#endif
