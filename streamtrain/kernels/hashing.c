/* From values to slots: 32-bit hashes of values, the entries of each row, and a bounded vocabulary of hashes. Each function
 * has a twin in hashing.py that gives the same bits. */

#include "kernels.h"

#include <float.h>
#include <math.h>

#define SOON 48 /* entries: how far ahead memory is prefetched */

/* The hash of all words so far and of one more. */
static inline uint32_t add_word(uint32_t h, uint32_t word)
{
    return mixed(h ^ word) + HASH_STEP;
}

/* Hash strings of bytes, four bytes at a time; the last four are filled up with zeros. */
void st_hash_bytes(const uint8_t *data, const int64_t *offsets, int64_t rows, uint32_t seed, uint32_t *hashes)
{
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *at = data + offsets[r];
        int64_t left = offsets[r + 1] - offsets[r];
        uint32_t h = seed ^ (uint32_t)left * HASH_STEP, word;
        for (; left >= 4; left -= 4, at += 4) {
            memcpy(&word, at, 4);
            h = add_word(h, word);
        }
        if (left > 0) {
            word = 0;
            memcpy(&word, at, (size_t)left);
            h = add_word(h, word);
        }
        hashes[r] = not_zero(mixed(h));
    }
}

static inline int is_set(const uint8_t *bits, int64_t position)
{
    return bits[position >> 3] >> (position & 7) & 1;
}

/* Convert numbers to float32. A row whose bit in valid is 0 gets NaN; offset is the position of the first row's bit. kind
 * is an enum number_kind. */
void st_floats(const void *values, int64_t kind, const uint8_t *valid, int64_t offset, int64_t rows, float *floats)
{
    for (int64_t r = 0; kind == INT32 && r < rows; r++)
        floats[r] = (float)((const int32_t *)values)[r];
    for (int64_t r = 0; kind == INT64 && r < rows; r++)
        floats[r] = (float)((const int64_t *)values)[r];
    if (kind == FLOAT32)
        memcpy(floats, values, (size_t)rows * sizeof(float));
    for (int64_t r = 0; kind == FLOAT64 && r < rows; r++)
        floats[r] = (float)((const double *)values)[r];
    for (int64_t r = 0; r < rows; r++)
        floats[r] = is_set(valid, offset + r) ? floats[r] : NAN;
}

/* The hash of each row of a dictionary column, whose codes are positions in hashes. A row whose bit in valid is 0 gets null,
 * and its code may be anything; offset is the position of the first row's bit. valid may be NULL. */
void st_take(const uint32_t *hashes, const int32_t *codes, const uint8_t *valid, int64_t offset, int64_t rows,
             uint32_t null, uint32_t *taken)
{
    for (int64_t r = 0; r < rows; r++)
        taken[r] = !valid || is_set(valid, offset + r) ? hashes[codes[r]] : null;
}

/* List the entries of each row, which are hashes: of its missing numbers, of its categories, of their crosses. Missing
 * numbers are replaced by fill. hashes, shape (rows, count): those of categories come first. crosses holds the number of columns of each cross and then these columns. sizes is the
 * number of entries that the caller adds behind those of each row, for which a gap is left; it may be NULL. Returns the
 * number of entries. */
int64_t st_entries(float *features, int64_t rows, int64_t width, const float *fill, const uint32_t *missing,
                   const uint32_t *hashes, int64_t count, int64_t categories, const int32_t *crosses, int64_t crossed,
                   const uint32_t *seeds, const int64_t *sizes, int64_t *indptr, uint32_t *entries)
{
    int64_t n = 0;
    indptr[0] = 0;
    for (int64_t r = 0; r < rows; r++) {
        float *row = features + r * width;
        const uint32_t *own = hashes + r * count;
        for (int64_t j = 0; missing && j < width; j++)
            if (row[j] != row[j]) {
                row[j] = fill[j];
                entries[n++] = missing[j];
            }
        for (int64_t j = 0; j < categories; j++)
            entries[n++] = own[j];
        const int32_t *cross = crosses;
        for (int64_t k = 0; k < crossed; k++, cross += 1 + cross[0]) {
            uint32_t h = seeds[k];
            for (int32_t i = 1; i <= cross[0]; i++)
                h = add_word(h, own[cross[i]]);
            entries[n++] = not_zero(mixed(h));
        }
        n += sizes ? sizes[r] : 0;
        indptr[r + 1] = n;
    }
    return n;
}

/* The position of a hash in a bucket, or -1. All cells are compared: that costs less than guessing where to stop. */
static inline int32_t position(const uint32_t *bucket, uint32_t hash)
{
    int32_t at = -1;
    for (int32_t k = 0; k < BUCKET; k++)
        at = bucket[2 * k] == hash ? k : at;
    return at;
}

/* Find the slots of hashes in a vocabulary. cells, shape (size, 2), size a power of two, are pairs of hash and slot; a hash
 * is in the bucket that its low bits name, or in the neighbour of that bucket.
 *
 * A hash that is not there gets the next slot, used[0] + 1, if claim is 1, fewer than most slots are taken and a cell is
 * empty. If claim is 0 and it could have had a slot, the result is 0. Otherwise it shares one of the slots behind most,
 * chosen by its bits, and used[1] counts it. */
void st_find_slots(const uint32_t *hashes, int64_t count, uint32_t *cells, int64_t size, int64_t claim, int64_t most,
                   int64_t sharing, int64_t *used, int32_t *slots)
{
    const uint32_t mask = (uint32_t)(size / BUCKET - 1);
    for (int64_t i = 0; i < count; i++) {
        if (i + SOON < count)
            __builtin_prefetch(cells + 2 * BUCKET * (int64_t)(hashes[i + SOON] & mask));
        const uint32_t hash = hashes[i], home = hash & mask;
        uint32_t *bucket = cells + 2 * BUCKET * (int64_t)home, *vacant = 0;
        int32_t at = position(bucket, hash), slot = -1;
        if (at < 0 && bucket[2 * BUCKET - 2]) { /* the bucket is full: the neighbour */
            bucket = cells + 2 * BUCKET * (int64_t)((home ^ 1) & mask);
            at = position(bucket, hash);
        }
        if (at >= 0)
            slot = (int32_t)bucket[2 * at + 1];
        for (int32_t k = 0; at < 0 && k < BUCKET && !vacant; k++)
            vacant = bucket[2 * k] ? 0 : bucket + 2 * k;
        if (slot < 0 && vacant && used[0] < most) {
            slot = 0;
            if (claim) {
                slot = (int32_t)++used[0];
                vacant[0] = hash;
                vacant[1] = (uint32_t)slot;
            }
        } else if (slot < 0) {
            slot = (int32_t)(most + 1 + (int64_t)((hash >> 8) % (uint64_t)sharing));
            used[1]++;
        }
        slots[i] = slot;
    }
}

/* Divide the values of entries by the root of the mean square of the values that their slots had so far, one entry after the
 * other. table, shape (slots, 2): how many values each slot had that are not 0, and the sum of their squares. Entries are
 * counted first if learn is 1. scaled: which entries; 0 for all. */
void st_scale_entries(const int32_t *slots, float *values, int64_t count, double *table, const uint8_t *scaled,
                      int64_t learn)
{
    for (int64_t i = 0; i < count; i++) {
        if (scaled && !scaled[i])
            continue;
        if (i + SOON < count)
            __builtin_prefetch(table + 2 * (int64_t)slots[i + SOON]);
        double *row = table + 2 * (int64_t)slots[i];
        const double value = values[i];
        if (learn && value != 0) {
            row[0] += 1;
            row[1] += value * value;
        }
        if (row[1] > 0) {
            const double result = value * __builtin_sqrt(row[0] / row[1]);
            values[i] = (float)(fmin(fmax(result, -FLT_MAX), FLT_MAX));
        }
    }
}
