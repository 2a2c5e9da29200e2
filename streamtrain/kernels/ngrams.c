/* Texts to hashed n-grams of words and of characters; what counts as which is told in ngrams.py, which does the same in
 * Python. No allocation, and no byte beyond a text's end is read, whatever the bytes are. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define IN_WORD 1
#define PAD (2 * ' ')
#define WAITING 512 /* signatures that are looked up together */
#define LEAST_PLACES 256

typedef uint32_t hashes __attribute__((vector_size(LANES * sizeof(uint32_t)))); /* LANES is _MOST in ngrams.py */

struct place {
    uint32_t signature, entry; /* 1 + the position of the entry, or 0 */
};

/* The entries of one kind of one row, and where each signature stands among them. */
struct found {
    uint32_t *signatures;
    float *counts;
    int64_t count, room;
    struct place *table; /* at most half of it is in use */
    uint32_t mask;
    int full;
};

/* The n-grams that end at the latest symbol, that of n symbols in lane n - 1, and their signatures. */
struct run {
    hashes state, signature;
    uint32_t start;
    int64_t seen, shortest, longest, waiting;
    uint32_t signatures[WAITING + LANES];
};

static inline struct place *place_of(struct place *table, uint32_t mask, uint32_t signature)
{
    uint32_t at = signature & mask;
    while ((table[at].entry != 0) & (table[at].signature != signature))
        at = (at + 1) & mask;
    return table + at;
}

static void make_places(struct found *found, int64_t more)
{
    const uint32_t mask = found->mask;
    while (2 * (found->count + more) > found->mask)
        found->mask = 2 * found->mask + 1;
    if (found->mask == mask)
        return;
    memset(found->table, 0, ((size_t)found->mask + 1) * sizeof *found->table);
    for (int64_t e = 0; e < found->count; e++)
        *place_of(found->table, found->mask, found->signatures[e]) = (struct place){found->signatures[e], (uint32_t)e + 1};
}

/* Looks up the signatures that wait; without a branch on whether one is new, which could not be foretold. */
static void merge(struct found *found, struct run *run)
{
    if (run->waiting > found->room - found->count) {
        found->full = 1;
        run->waiting = 0;
        return;
    }
    make_places(found, run->waiting);
    struct place *table = found->table;
    uint32_t *signatures = found->signatures;
    float *counts = found->counts;
    const uint32_t mask = found->mask;
    int64_t count = found->count;
    for (int64_t k = 0; k < run->waiting; k++) {
        const uint32_t signature = run->signatures[k];
        struct place *place = place_of(table, mask, signature);
        const int64_t new = place->entry == 0, entry = new ? count : (int64_t)place->entry - 1;
        *place = (struct place){signature, (uint32_t)entry + 1};
        signatures[entry] = signature;
        counts[count] = 0; /* there is room: this signature waited */
        counts[entry] += 1;
        count += new;
    }
    found->count = count;
    run->waiting = 0;
}

static inline uint32_t absorbed(uint32_t state, uint32_t symbol)
{
    state = (state ^ symbol) * 0x7feb352dU;
    return state ^ state >> 15;
}

/* One more symbol: each n-gram is what the one of n - 1 before it becomes (absorbed, hashed). */
static inline void extend(struct run *run, uint32_t symbol, struct found *found)
{
    hashes x = __builtin_shuffle(run->state, (hashes){0} + run->start, (hashes){8, 0, 1, 2, 3, 4, 5, 6});
    x = (x ^ symbol) * 0x7feb352dU;
    x ^= x >> 15;
    run->state = x;
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x *= 0x846ca68bU;
    x ^= x >> 16;
    run->signature = x - (hashes)(x == 0); /* true is -1: never 0 */
    const int64_t last = ++run->seen < run->longest ? run->seen : run->longest;
    for (int64_t n = run->shortest; n <= run->longest; n++)
        run->signatures[run->waiting + n - run->shortest] = run->signature[n - 1];
    run->waiting += last < run->shortest ? 0 : last - run->shortest + 1;
    if (run->waiting >= WAITING)
        merge(found, run);
}

/* What the next code point is: 0 for white space, which also stands after the end, else twice what it folds to, plus
 * IN_WORD. */
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
            word = absorbed(word, symbol);
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
        if (inside && !symbol && run->seen < run->shortest) /* all of it, then */
            run->signatures[run->waiting++] = run->signature[run->seen - 1];
        inside = symbol != 0;
    }
}

/* 1 + ln(count). Of a count only the upper 8 bits are looked at. */
static inline double damped(float count, const double *logarithms)
{
    uint32_t n = (uint32_t)count, halvings = 0;
    for (; n > 255; n >>= 1)
        halvings++;
    return logarithms[n] + halvings * logarithms[0];
}

/* Counts to values whose squares add up to 1. */
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

/* The n-grams of the texts from row on. Ends before a row that may not fit in room, and returns it. table has place for
 * 256 signatures, and for 4 of each n-gram of a row. lengths: of n-grams of words and of characters, shortest and longest;
 * a hash of each kind starts from its seed. */
int64_t st_ngrams(const uint8_t *data, const int64_t *starts, const int32_t *sizes, int64_t row, int64_t rows,
                  const int64_t *lengths, const uint32_t *seeds, const uint32_t *symbols, const double *logarithms,
                  int64_t *indptr, uint32_t *signatures, float *values, int64_t room, struct place *table)
{
    struct run run;
    for (; row < rows; row++) {
        int64_t from = indptr[row];
        const uint8_t *text = data + starts[row], *end = text + (sizes[row] < 0 ? 0 : sizes[row]);
        for (int kind = 0; kind < 2; kind++) {
            struct found found = {signatures + from, values + from, 0, room - from, table, LEAST_PLACES - 1, 0};
            memset(table, 0, LEAST_PLACES * sizeof *table);
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
