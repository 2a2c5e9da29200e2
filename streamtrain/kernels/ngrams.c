/* Texts to hashed n-grams of words and of characters. ngrams.py says what a word and a character are, and does the same in
 * Python. No byte beyond the end of a text is read, whatever the bytes are. */

#include "kernels.h"

#include <math.h>

#define WAITING 512 /* hashes that are looked up together */

typedef uint32_t hash_lanes __attribute__((vector_size(LANES * sizeof(uint32_t))));

/* A cell of a hash table. */
struct cell {
    uint32_t hash, entry; /* 1 + the position of the entry, or 0 where the cell is empty */
};

/* The n-grams of one kind in one row: hashes and counts in the order of first appearance, and a table to find them by. */
struct found {
    uint32_t *hashes;
    float *counts;
    int64_t count, room;
    struct cell *table; /* at most half of its cells are in use */
    uint32_t mask;
    int full;
};

/* The n-grams that end at the latest symbol, the one of n symbols in lane n - 1, and the hashes that wait to be counted. */
struct run {
    hash_lanes state, hash;
    uint32_t start;
    int64_t seen, shortest, longest, waiting;
    uint32_t hashes[WAITING + LANES];
};

static inline struct cell *cell_of(struct cell *table, uint32_t mask, uint32_t hash)
{
    uint32_t at = hash & mask;
    while ((table[at].entry != 0) & (table[at].hash != hash))
        at = (at + 1) & mask;
    return table + at;
}

static void grow_table(struct found *found, int64_t more)
{
    const uint32_t mask = found->mask;
    while (2 * (found->count + more) > found->mask)
        found->mask = 2 * found->mask + 1;
    if (found->mask == mask)
        return;
    memset(found->table, 0, ((size_t)found->mask + 1) * sizeof *found->table);
    for (int64_t e = 0; e < found->count; e++)
        *cell_of(found->table, found->mask, found->hashes[e]) = (struct cell){found->hashes[e], (uint32_t)e + 1};
}

/* Count the hashes that wait, without a branch on whether one is new, which no processor could predict. */
static void merge(struct found *found, struct run *run)
{
    if (run->waiting > found->room - found->count) {
        found->full = 1;
        run->waiting = 0;
        return;
    }
    grow_table(found, run->waiting);
    struct cell *table = found->table;
    uint32_t *hashes = found->hashes;
    float *counts = found->counts;
    const uint32_t mask = found->mask;
    int64_t count = found->count;
    for (int64_t k = 0; k < run->waiting; k++) {
        const uint32_t hash = run->hashes[k];
        struct cell *cell = cell_of(table, mask, hash);
        const int64_t new = cell->entry == 0, entry = new ? count : (int64_t)cell->entry - 1;
        *cell = (struct cell){hash, (uint32_t)entry + 1};
        hashes[entry] = hash;
        counts[count] = 0; /* there is room: it was made for all that wait */
        counts[entry] += 1;
        count += new;
    }
    found->count = count;
    run->waiting = 0;
}

/* The hash of all symbols so far and of one more, before it is mixed. */
static inline uint32_t add_symbol(uint32_t state, uint32_t symbol)
{
    state = (state ^ symbol) * 0x7feb352dU;
    return state ^ state >> 15;
}

/* One more symbol: each n-gram is the one of n - 1 symbols that ended before it, and this symbol (add_symbol, mixed). */
static inline void extend(struct run *run, uint32_t symbol, struct found *found)
{
    hash_lanes x = __builtin_shufflevector(run->state, (hash_lanes){0} + run->start, 8, 0, 1, 2, 3, 4, 5, 6);
    x = (x ^ symbol) * 0x7feb352dU;
    x ^= x >> 15;
    run->state = x;
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x *= 0x846ca68bU;
    x ^= x >> 16;
    run->hash = x - (hash_lanes)(x == 0); /* true is -1, so a hash is never 0 */
    const int64_t last = ++run->seen < run->longest ? run->seen : run->longest;
    for (int64_t n = run->shortest; n <= run->longest; n++)
        run->hashes[run->waiting + n - run->shortest] = run->hash[n - 1];
    run->waiting += last < run->shortest ? 0 : last - run->shortest + 1;
    if (run->waiting >= WAITING)
        merge(found, run);
}

/* The symbol of the next code point: 0 for white space and at the end, otherwise twice the folded code point, plus IN_WORD
 * where it is part of a word. */
static inline uint32_t next_symbol(const uint8_t **at, const uint8_t *end, const uint32_t *symbols)
{
    if (*at == end)
        return 0;
    const uint32_t byte = *(*at)++;
    if (byte < 0x80)
        return symbols[byte];
    int more = (byte >= 0xc0) + (byte >= 0xe0) + (byte >= 0xf0);
    uint32_t code = byte & (0x3fU >> more);
    for (; more && *at < end; more--)
        code = code << 6 | (*(*at)++ & 0x3fU);
    if (code < 0x10000)
        return symbols[code];
    return 2 * code + (code < 0x1f000 || code >= 0x20000 ? IN_WORD : 0);
}

static void find_words(const uint8_t *at, const uint8_t *end, const uint32_t *symbols, struct run *run, struct found *found)
{
    uint32_t inside = 0, word = run->start;
    while (!found->full && (at < end || inside)) {
        const uint32_t symbol = next_symbol(&at, end, symbols);
        if (symbol & IN_WORD) {
            word = add_symbol(word, symbol);
        } else if (inside) {
            extend(run, word, found);
            word = run->start;
        }
        inside = symbol & IN_WORD;
    }
}

static void find_characters(const uint8_t *at, const uint8_t *end, const uint32_t *symbols, struct run *run,
                            struct found *found)
{
    int inside = 0;
    while (!found->full && (at < end || inside)) {
        const uint32_t symbol = next_symbol(&at, end, symbols);
        if (symbol && !inside) {
            run->seen = 0;
            extend(run, PAD, found);
        }
        if (symbol || inside)
            extend(run, symbol ? symbol : PAD, found);
        if (inside && !symbol && run->seen < run->shortest) /* too short: the whole run is the n-gram */
            run->hashes[run->waiting++] = run->hash[run->seen - 1];
        inside = symbol != 0;
    }
}

/* 1 + ln(count), from the upper 8 bits of the count. */
static inline double damped(float count, const double *logarithms)
{
    uint32_t n = (uint32_t)count, halvings = 0;
    for (; n > 255; n >>= 1)
        halvings++;
    return logarithms[n] + halvings * logarithms[0];
}

/* Turn the counts of a row into values whose squares add up to 1. */
static void scale_counts(float *values, int64_t count, const double *logarithms)
{
    double sum = 0;
    for (int64_t e = 0; e < count; e++) {
        const double x = damped(values[e], logarithms);
        sum += x * x;
    }
    const double scale = 1 / sqrt(sum);
    for (int64_t e = 0; e < count; e++)
        values[e] = (float)(damped(values[e], logarithms) * scale);
}

/* List the n-grams of the texts from row on. Returns the first row that may not fit in room, or rows. table has LEAST_CELLS
 * cells, and 4 more for each n-gram of a row. lengths are the shortest and the longest n-gram of words, then of characters;
 * seeds are what the hashes of each kind start from. */
int64_t st_ngrams(const uint8_t *data, const int64_t *starts, const int32_t *sizes, int64_t row, int64_t rows,
                  const int64_t *lengths, const uint32_t *seeds, const uint32_t *symbols, const double *logarithms,
                  int64_t *indptr, uint32_t *hashes, float *values, int64_t room, void *table)
{
    struct run run;
    for (; row < rows; row++) {
        int64_t from = indptr[row];
        const uint8_t *text = data + starts[row], *end = text + (sizes[row] < 0 ? 0 : sizes[row]);
        for (int kind = 0; kind < 2; kind++) {
            struct found found = {hashes + from, values + from, 0, room - from, table, LEAST_CELLS - 1, 0};
            memset(table, 0, LEAST_CELLS * sizeof(struct cell));
            memset(&run.state, 0, sizeof run.state);
            run.start = seeds[kind];
            run.seen = run.waiting = 0;
            run.shortest = lengths[2 * kind];
            run.longest = lengths[2 * kind + 1];
            if (run.longest)
                (kind ? find_characters : find_words)(text, end, symbols, &run, &found);
            merge(&found, &run);
            if (found.full)
                return row;
            from += found.count;
        }
        scale_counts(values + indptr[row], from - indptr[row], logarithms);
        indptr[row + 1] = from;
    }
    return row;
}
