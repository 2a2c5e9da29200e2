/* exp, log and what is made of them. The mathematical libraries of systems, processors and compilers give other last bits;
 * these consist of additions, multiplications, divisions and shifts in a fixed order. functions.py does the same in numpy. */

#include "kernels.h"

#define SHIFTER 6755399441055744.0 /* 1.5 * 2^52: added to a number, it leaves the nearest integer in the low bits */
#define LOG2_E 1.4426950408889634
#define LN2_HIGH 0x1.62e42fefap-1 /* ln 2 = LN2_HIGH + LN2_LOW; the former times an exponent is exact */
#define LN2_LOW 0x1.cf79abc9e3b3ap-40
#define ROOT_HALF 0x3fe6a09e667f3bcdULL /* the bits of sqrt(1 / 2) */
#define SOFTMAX_BLOCK 4096              /* numbers that are worked on together */

typedef double doubles __attribute__((vector_size(LANES * sizeof(double))));
typedef int64_t double_bits __attribute__((vector_size(LANES * sizeof(int64_t))));
typedef uint64_t double_words __attribute__((vector_size(LANES * sizeof(uint64_t))));

static inline doubles chosen(double_bits first, doubles yes, doubles no)
{
    return (doubles)((first & (double_bits)yes) | (~first & (double_bits)no));
}

/* exp(r) - 1 for r from -0.35 to 0.35, by its series. */
static inline doubles near_zero(doubles r)
{
    doubles sum = r * (1 / 87178291200.0) + 1 / 6227020800.0;
    sum = sum * r + 1 / 479001600.0;
    sum = sum * r + 1 / 39916800.0;
    sum = sum * r + 1 / 3628800.0;
    sum = sum * r + 1 / 362880.0;
    sum = sum * r + 1 / 40320.0;
    sum = sum * r + 1 / 5040.0;
    sum = sum * r + 1 / 720.0;
    sum = sum * r + 1 / 120.0;
    sum = sum * r + 1 / 24.0;
    sum = sum * r + 1 / 6.0;
    sum = sum * r + 0.5;
    return r + r * r * sum;
}

/* 2 to the powers k, from -1022 to 1023. */
static inline doubles power_of_two(double_bits k)
{
    return (doubles)(double_words)((k + 1023) << 52);
}

/* exp(x) = 2^k * exp(r), |r| <= ln 2 / 2; in two factors, as neither 2^1024 nor 2^-1075 is a normal number. NaN stays NaN. */
static inline doubles exponential(doubles x)
{
    const doubles most = (doubles){0} + 710, least = (doubles){0} - 746;
    x = chosen(x > most, most, chosen(x < least, least, x));
    const doubles sum = x * LOG2_E + SHIFTER, k = sum - SHIFTER;
    const doubles e = 1 + near_zero((x - k * LN2_HIGH) - k * LN2_LOW);
    const double_bits power = (double_bits)sum - (double_bits)((doubles){0} + SHIFTER);
    const double_bits half = (double_bits)((double_words)(power + 4096) >> 1) - 2048;
    return e * power_of_two(half) * power_of_two(power - half);
}

/* exp(x) - 1, exact to the last digits near 0 too. */
static inline doubles exponential_less_one(doubles x)
{
    const doubles most = (doubles){0} + 64, least = (doubles){0} - 64;
    const doubles y = chosen(x > most, most, chosen(x < least, least, x));
    const doubles sum = y * LOG2_E + SHIFTER, k = sum - SHIFTER;
    const doubles scale = power_of_two((double_bits)sum - (double_bits)((doubles){0} + SHIFTER));
    const doubles e = near_zero((y - k * LN2_HIGH) - k * LN2_LOW) * scale + (scale - 1);
    return chosen(x > most, exponential(x), e);
}

/* log(x) = k ln 2 + log(m), m from sqrt(1/2) to sqrt(2); log(m) = 2 atanh(s), s = (m - 1) / (m + 1), by its series. */
static inline doubles logarithm(doubles x)
{
    const doubles none = {0}, tiny = none + 0x1p-1022, huge = none + 0x1.fffffffffffffp+1023;
    const double_bits small = x < tiny;
    const double_words bits = (double_words)chosen(small, x * 0x1p54, x);
    const double_words above = bits - ROOT_HALF + (1ULL << 63); /* so that the shift below is one of unsigned numbers */
    const double_bits power = (double_bits)(above >> 52) - 2048 - (small & 54);
    const doubles m = (doubles)(bits - ((above >> 52) << 52) + (1ULL << 63));
    const doubles k = (doubles)(power + (double_bits)(none + SHIFTER)) - SHIFTER;
    const doubles f = m - 1, s = f / (2 + f), z = s * s;
    doubles sum = z * (2 / 23.0) + 2 / 21.0;
    sum = sum * z + 2 / 19.0;
    sum = sum * z + 2 / 17.0;
    sum = sum * z + 2 / 15.0;
    sum = sum * z + 2 / 13.0;
    sum = sum * z + 2 / 11.0;
    sum = sum * z + 2 / 9.0;
    sum = sum * z + 2 / 7.0;
    sum = sum * z + 2 / 5.0;
    sum = sum * z + 2 / 3.0;
    const doubles half = 0.5 * f * f; /* log(1 + f) = f - f^2 / 2 + s * (f^2 / 2 + z * sum) */
    const doubles found = k * LN2_HIGH - ((half - (s * (half + z * sum) + k * LN2_LOW)) - f);
    const doubles at_zero = none - __builtin_inf(), below = none + __builtin_nan("");
    return chosen(x > huge, x, chosen(x > none, found, chosen(x == none, at_zero, chosen(x < none, below, x))));
}

/* log(1 + x): the logarithm of the rounded sum, and what the rounding took away. */
static inline doubles logarithm_of_more(doubles x)
{
    const doubles none = {0}, huge = none + 0x1.fffffffffffffp+1023, sum = 1 + x, lost = (x - (sum - 1)) / sum;
    return logarithm(sum) + chosen((sum > huge) | (sum == none), none, lost);
}

/* The sine and the cosine of a whole turn times x, for x from 0 to 1. */
static inline doubles part_of_a_turn(doubles x, int64_t quarter)
{
    const doubles sum = x * 4 + SHIFTER, q = sum - SHIFTER;
    const doubles a = (x * 4 - q) * 1.5707963267948966, z = a * a;
    doubles sine = z * (1 / 355687428096000.0) - 1 / 1307674368000.0;
    sine = sine * z + 1 / 6227020800.0;
    sine = sine * z - 1 / 39916800.0;
    sine = sine * z + 1 / 362880.0;
    sine = sine * z - 1 / 5040.0;
    sine = sine * z + 1 / 120.0;
    sine = sine * z - 1 / 6.0;
    sine = a + a * z * sine;
    doubles cosine = z * (1 / 20922789888000.0) - 1 / 87178291200.0;
    cosine = cosine * z + 1 / 479001600.0;
    cosine = cosine * z - 1 / 3628800.0;
    cosine = cosine * z + 1 / 40320.0;
    cosine = cosine * z - 1 / 720.0;
    cosine = cosine * z + 1 / 24.0;
    cosine = cosine * z - 0.5;
    cosine = 1 + z * cosine;
    const double_bits turns = ((double_bits)sum - (double_bits)((doubles){0} + SHIFTER) + quarter) & 3;
    const doubles size = chosen((turns & 1) == 1, cosine, sine);
    return chosen((turns & 2) == 2, 0 - size, size);
}

static inline doubles value_at(doubles x, int64_t function)
{
    switch (function) {
    case EXP:
        return exponential(x);
    case EXPM1:
        return exponential_less_one(x);
    case LOG:
        return logarithm(x);
    case LOG1P:
        return logarithm_of_more(x);
    case SINE:
        return part_of_a_turn(x, 0);
    default:
        return part_of_a_turn(x, 1);
    }
}

/* values = function(numbers); the same array may be both. */
void st_function(int64_t function, const double *numbers, int64_t count, double *values)
{
    int64_t i = 0;
    doubles x = {0};
    for (; i + LANES <= count; i += LANES) {
        memcpy(&x, numbers + i, sizeof x);
        x = value_at(x, function);
        memcpy(values + i, &x, sizeof x);
    }
    const size_t rest = (size_t)(count - i) * sizeof(double);
    memcpy(&x, numbers + i, rest);
    x = value_at(x, function);
    memcpy(values + i, &x, rest);
}

/* exp(x) for x up to 0; 0 where it would be below the smallest normal number. NaN stays NaN. */
static inline lanes exponential_below_one(lanes x)
{
    const lanes least = (lanes){0} - 87;
    const lane_bits low = x < least;
    return (lanes)(~low & (lane_bits)power_of_e((lanes)((low & (lane_bits)least) | (~low & (lane_bits)x))));
}

static inline __attribute__((always_inline)) void replace(float *numbers, int64_t count, lanes (*function)(lanes))
{
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        store(numbers + i, function(load(numbers + i)));
    const size_t rest = (size_t)(count - i) * sizeof(float);
    lanes x = {0};
    memcpy(&x, numbers + i, rest);
    x = function(x);
    memcpy(numbers + i, &x, rest);
}

/* 1 / (1 + exp(-x)), in place. */
void st_sigmoid(float *numbers, int64_t count)
{
    replace(numbers, count, sigmoid);
}

/* From margins to probabilities, exp(margin) / sum(exp(margins)), shape (count, classes), in place; less 1 for the class of
 * each target, unless targets is NULL. The sum is taken class by class. Returns the first row whose target is no class, and
 * leaves its block unfinished; count if there is none. */
int64_t st_softmax(float *margins, int64_t count, int64_t classes, const int32_t *targets)
{
    const int64_t together = classes < SOFTMAX_BLOCK ? SOFTMAX_BLOCK / classes : 1;
    for (int64_t start = 0; start < count; start += together) {
        const int64_t n = start + together < count ? together : count - start;
        float *block = margins + start * classes;
        for (float *row = block; row < block + n * classes; row += classes) {
            float most = row[0];
            for (int64_t k = 1; k < classes; k++)
                most = row[k] > most ? row[k] : most;
            for (int64_t k = 0; k < classes; k++)
                row[k] -= most;
        }
        replace(block, n * classes, exponential_below_one);
        for (float *row = block; row < block + n * classes; row += classes) {
            float sum = 0;
            for (int64_t k = 0; k < classes; k++)
                sum += row[k];
            for (int64_t k = 0; k < classes; k++)
                row[k] /= sum;
        }
        for (int64_t r = 0; targets && r < n; r++) {
            if (targets[start + r] < 0 || targets[start + r] >= classes)
                return start + r;
            block[r * classes + targets[start + r]] -= 1;
        }
    }
    return count;
}
