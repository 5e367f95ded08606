/* Keys, values and access orders: made from numbers, so that each value read can be checked. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Values are slices of one pool of random bytes: nothing is generated or copied while the clock
 * runs, a check is one memcmp, and no store gains by compressing. The pool is small, to leave the
 * cache to the stores. */
#define POOL_SIZE (UINT64_C(1) << 16)

static unsigned char *pool;
static size_t value_size;

uint64_t mix64(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void data_init(size_t size)
{
    size_t words = (POOL_SIZE + size) / 8 + 1;
    uint64_t *fresh = malloc(words * 8);
    if (fresh == NULL)
        die("out of memory");
    for (size_t i = 0; i < words; i++)
        fresh[i] = mix64(UINT64_C(0x5eed) << 32 | i);
    pool = (unsigned char *)fresh;
    value_size = size;
}

/* mix64 is a bijection: keys look random and are distinct. */
void make_key(uint64_t record, unsigned char key[KEY_SIZE])
{
    uint64_t half[2] = { mix64(record), mix64(~record) };
    memcpy(key, half, KEY_SIZE);
}

const unsigned char *make_value(const unsigned char key[KEY_SIZE], unsigned version)
{
    uint64_t seed;
    memcpy(&seed, key, sizeof seed);
    return pool + mix64(seed + version) % POOL_SIZE;
}

int value_version(const unsigned char key[KEY_SIZE], const void *value, size_t len)
{
    if (len != value_size)
        return -1;
    for (unsigned version = 0; version < VERSIONS; version++)
        if (memcmp(make_value(key, version), value, len) == 0)
            return (int)version;
    return -1;
}

static uint32_t *plan_new(size_t count)
{
    uint32_t *plan = malloc(count * sizeof *plan + 1);
    if (plan == NULL)
        die("out of memory");
    return plan;
}

/* Each record once, in random order. */
uint32_t *plan_shuffled(size_t records, uint64_t seed)
{
    uint32_t *plan = plan_new(records);
    for (size_t i = 0; i < records; i++)
        plan[i] = (uint32_t)i;
    for (size_t i = records; i > 1; i--) {
        size_t j = mix64(seed ^ (uint64_t)i << 8) % i;
        uint32_t held = plan[i - 1];
        plan[i - 1] = plan[j];
        plan[j] = held;
    }
    return plan;
}

/* The scrambled zipfian distribution of YCSB (Gray et al., "Quickly generating billion-record
 * synthetic databases"): rank r is drawn in proportion to 1/r^0.99, popular records lie
 * anywhere. */
uint32_t *plan_zipfian(size_t count, size_t records, unsigned write_percent, uint64_t seed)
{
    const double theta = 0.99, n = (double)records;
    double zeta = 0;
    for (size_t i = 1; i <= records; i++)
        zeta += pow((double)i, -theta);
    const double zeta2 = 1 + pow(2, -theta);
    const double alpha = 1 / (1 - theta);
    const double eta = (1 - pow(2 / n, 1 - theta)) / (1 - zeta2 / zeta);

    uint32_t *plan = plan_new(count);
    for (size_t i = 0; i < count; i++) {
        uint64_t random = mix64(seed << 40 ^ i);
        double u = (double)(random >> 11) / (double)(UINT64_C(1) << 53);
        double rank = 0;
        if (u * zeta >= zeta2)
            rank = n * pow(eta * u - eta + 1, alpha);
        else if (u * zeta >= 1)
            rank = 1;
        plan[i] = (uint32_t)(mix64((uint64_t)rank) % records);
        if (mix64(random) % 100 < write_percent)
            plan[i] |= WRITE_BIT;
    }
    return plan;
}
