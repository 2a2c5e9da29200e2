/* From values to slots: 32-bit signatures of values, the entries of each row, and a bounded dictionary of signatures. Included
 * by kernels.c, whose hashed() it uses. Each function has a twin in slots.py that gives the same bits. */

#define NEXT 0x9e3779b9U
#define BUCKET 8 /* places that are looked at together: 64 bytes, one cache line */
#define SOON 48  /* entries: how far ahead memory is asked for */

static inline uint32_t update_from_sums(uint32_t h, uint32_t word)
{
    return hashed(h ^ word) + NEXT;
}

static inline uint32_t not_zero(uint32_t h)
{
    return h ? h : 1;
}

/* Signatures of strings of bytes: four bytes at a time, the rest filled up with zeros. */
void st_hash_bytes(const uint8_t *data, const int64_t *offsets, int64_t rows, uint32_t seed, uint32_t *out)
{
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *at = data + offsets[r];
        int64_t left = offsets[r + 1] - offsets[r];
        uint32_t h = seed ^ (uint32_t)left * NEXT, word;
        for (; left >= 4; left -= 4, at += 4) {
            memcpy(&word, at, 4);
            h = update_from_sums(h, word);
        }
        if (left > 0) {
            word = 0;
            memcpy(&word, at, (size_t)left);
            h = update_from_sums(h, word);
        }
        out[r] = not_zero(hashed(h));
    }
}

/* Numbers as float32, NaN where a bit of valid, from offset on, is 0. kind: 0 for int32, 1 for int64, 2 for float32, 3 for
 * float64. */
void st_floats(const void *values, int64_t kind, const uint8_t *valid, int64_t offset, int64_t rows, float *out)
{
    for (int64_t r = 0; kind == 0 && r < rows; r++)
        out[r] = (float)((const int32_t *)values)[r];
    for (int64_t r = 0; kind == 1 && r < rows; r++)
        out[r] = (float)((const int64_t *)values)[r];
    if (kind == 2)
        memcpy(out, values, (size_t)rows * sizeof(float));
    for (int64_t r = 0; kind == 3 && r < rows; r++)
        out[r] = (float)((const double *)values)[r];
    for (int64_t r = 0; r < rows; r++) {
        const int64_t bit = offset + r;
        out[r] = valid[bit >> 3] >> (bit & 7) & 1 ? out[r] : NAN;
    }
}

/* The signature of each value of a dictionary column: codes name values; where a bit of valid, from offset on, is 0 there is
 * none, and the code may be anything. */
void st_take(const uint32_t *signatures, const int32_t *codes, const uint8_t *valid, int64_t offset, int64_t rows,
             uint32_t null, uint32_t *out)
{
    for (int64_t r = 0; r < rows; r++) {
        const int64_t bit = offset + r;
        out[r] = !valid || valid[bit >> 3] >> (bit & 7) & 1 ? signatures[codes[r]] : null;
    }
}

/* The signatures of each row, one after the other: of its numbers that are missing, of its categories, of their crosses. A
 * missing number is replaced by fill. crosses: for each the number of columns, then these. sizes: how many each row has of
 * another kind, which the caller puts in behind; 0 where there are none. Returns how many there are. */
int64_t st_entries(float *features, int64_t rows, int64_t width, const float *fill, const uint32_t *missing,
                   const uint32_t *codes, int64_t count, int64_t categories, const int32_t *crosses, int64_t crossed, const uint32_t *seeds,
                   const int64_t *sizes, int64_t *indptr, uint32_t *out)
{
    int64_t n = 0;
    indptr[0] = 0;
    for (int64_t r = 0; r < rows; r++) {
        float *row = features + r * width;
        const uint32_t *code = codes + r * count;
        for (int64_t j = 0; missing && j < width; j++)
            if (row[j] != row[j]) {
                row[j] = fill[j];
                out[n++] = missing[j];
            }
        for (int64_t j = 0; j < categories; j++)
            out[n++] = code[j];
        const int32_t *cross = crosses;
        for (int64_t k = 0; k < crossed; k++, cross += 1 + cross[0]) {
            uint32_t h = seeds[k];
            for (int32_t i = 1; i <= cross[0]; i++)
                h = update_from_sums(h, code[cross[i]]);
            out[n++] = not_zero(hashed(h));
        }
        n += sizes ? sizes[r] : 0;
        indptr[r + 1] = n;
    }
    return n;
}

/* Where a signature stands in its bucket, or -1: all places are looked at, which costs less than to guess where to stop. */
static inline int32_t position(const uint32_t *place, uint32_t signature)
{
    int32_t at = -1;
    for (int32_t k = 0; k < BUCKET; k++)
        at = place[2 * k] == signature ? k : at;
    return at;
}

/* Where signatures stand in the dictionary. places, shape (size, 2), size a power of two: signature and slot; a signature
 * belongs to the bucket of its low bits or to that bucket's neighbour. claim: whether those that are not there get the next
 * slot, used[0] + 1, while there are fewer than most and a place is free; otherwise they get one of the slots behind most, by
 * their bits, or, where there would have been room for them, 0. used[1] counts those that share. */
void st_slots(const uint32_t *signatures, int64_t count, uint32_t *places, int64_t size, int64_t claim, int64_t most,
              int64_t sharing, int64_t *used, int32_t *out)
{
    const uint32_t mask = (uint32_t)(size / BUCKET - 1);
    for (int64_t i = 0; i < count; i++) {
        if (i + SOON < count)
            __builtin_prefetch(places + 2 * BUCKET * (int64_t)(signatures[i + SOON] & mask));
        const uint32_t signature = signatures[i], home = signature & mask;
        uint32_t *place = places + 2 * BUCKET * (int64_t)home, *vacant = 0;
        int32_t at = position(place, signature), found = -1;
        if (at < 0 && place[2 * BUCKET - 2]) { /* no place is free: the neighbour */
            place = places + 2 * BUCKET * (int64_t)((home ^ 1) & mask);
            at = position(place, signature);
        }
        if (at >= 0)
            found = (int32_t)place[2 * at + 1];
        for (int32_t k = 0; at < 0 && k < BUCKET && !vacant; k++)
            vacant = place[2 * k] ? 0 : place + 2 * k;
        if (found < 0 && vacant && used[0] < most) {
            found = 0;
            if (claim) {
                found = (int32_t)++used[0];
                vacant[0] = signature;
                vacant[1] = (uint32_t)found;
            }
        } else if (found < 0) {
            found = (int32_t)(most + 1 + (int64_t)((signature >> 8) % (uint64_t)sharing));
            used[1]++;
        }
        out[i] = found;
    }
}
