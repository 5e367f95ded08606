/*
 * What calls that do several things at once are worth, against the same done one by one: kv_get_many() and batches.
 *
 *   calls DIR RECORDS     databases go into DIR; a 16-byte key and a 100-byte value each
 *
 * The two take turns; what is printed are medians of the rounds, and their ratio.
 */
#include <kvstore.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 5, KEY = 16, VALUE = 100, MOST = 1000 };

static void check(int32_t status, const char *call)
{
    char message[512];
    if (status == KV_OK)
        return;
    kv_last_error(message, sizeof message);
    fprintf(stderr, "%s: %s: %s\n", call, kv_strerror(status), message);
    exit(1);
}

#define OK(call) check((call), #call)

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Numbers that look random, and differ for each number. */
static uint64_t mix(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static const uint8_t *key_of(uint64_t record, uint8_t key[KEY])
{
    const uint64_t words[2] = {mix(record), mix(~record)};
    memcpy(key, words, KEY);
    return key;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(const char *what, double one[ROUNDS], double many[ROUNDS])
{
    qsort(one, ROUNDS, sizeof *one, compare);
    qsort(many, ROUNDS, sizeof *many, compare);
    printf("%-44s %10.0f/s  one by one %10.0f/s  %6.2f x\n", what, many[ROUNDS / 2], one[ROUNDS / 2],
           many[ROUNDS / 2] / one[ROUNDS / 2]);
    fflush(stdout);
}

static double set_one_by_one(kv_store *store, uint64_t first, uint64_t count)
{
    uint8_t key[KEY], value[VALUE] = {1};
    const double start = now();
    for (uint64_t i = first; i < first + count; i++)
        OK(kv_set(store, key_of(i, key), KEY, value, VALUE));
    return (double)count / (now() - start);
}

static double set_in_batches(kv_store *store, kv_batch *batch, uint64_t first, uint64_t count)
{
    uint8_t key[KEY], value[VALUE] = {1};
    const double start = now();
    for (uint64_t i = first; i < first + count; i++) {
        OK(kv_batch_set(batch, key_of(i, key), KEY, value, VALUE));
        if (kv_batch_len(batch) == MOST || i == first + count - 1) {
            OK(kv_write(store, batch));
            OK(kv_batch_clear(batch));
        }
    }
    return (double)count / (now() - start);
}

/* Fills a new database, named after `dir`; in batches or not. Returns the rate. */
static double fill(const char *dir, int round, uint64_t level, uint64_t count, int in_batches)
{
    char path[4096];
    kv_options *options = kv_options_new();
    kv_batch *batch;
    kv_store *store;
    double rate;
    snprintf(path, sizeof path, "%s/%llu-%d-%d", dir, (unsigned long long)level, in_batches, round);
    OK(kv_options_set(options, KV_OPT_SYNC, level));
    OK(kv_open(path, options, &store));
    OK(kv_batch_new(&batch));
    rate = in_batches ? set_in_batches(store, batch, 0, count) : set_one_by_one(store, 0, count);
    kv_batch_free(batch);
    kv_options_free(options);
    OK(kv_close(store));
    return rate;
}

static void batches(const char *dir, uint64_t level, uint64_t singles, uint64_t batched, const char *what)
{
    double one[ROUNDS], many[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        one[round] = fill(dir, round, level, singles, 0);
        many[round] = fill(dir, round, level, batched, 1);
    }
    report(what, one, many);
}

static double get_one_by_one(kv_store *store, uint64_t records, uint64_t count, uint64_t seed)
{
    uint8_t key[KEY], *value;
    size_t len;
    const double start = now();
    for (uint64_t i = 0; i < count; i++) {
        OK(kv_get(store, key_of(mix(seed + i) % records, key), KEY, &value, &len));
        kv_free_buf(value);
    }
    return (double)count / (now() - start);
}

static double get_together(kv_store *store, uint64_t records, uint64_t count, uint64_t seed, size_t at_once)
{
    static uint8_t bytes[MOST][KEY];
    static const uint8_t *keys[MOST], *values[MOST];
    static size_t key_lens[MOST], value_lens[MOST];
    const double start = now();
    for (uint64_t i = 0; i < count; i += at_once) {
        uint8_t *buf;
        for (size_t n = 0; n < at_once; n++) {
            keys[n] = key_of(mix(seed + i + n) % records, bytes[n]);
            key_lens[n] = KEY;
        }
        OK(kv_get_many(store, at_once, keys, key_lens, values, value_lens, &buf));
        for (size_t n = 0; n < at_once; n++) {
            if (values[n] == NULL || value_lens[n] != VALUE) {
                fprintf(stderr, "kv_get_many: a record is missing\n");
                exit(1);
            }
        }
        kv_free_buf(buf);
    }
    return (double)count / (now() - start);
}

static void gets(const char *dir, uint64_t records)
{
    const size_t sizes[] = {10, 100, 1000};
    const uint64_t count = 500000;
    kv_store *store;
    OK(kv_open(dir, NULL, &store));
    for (size_t s = 0; s < 3; s++) {
        double one[ROUNDS], many[ROUNDS];
        char what[64];
        for (int round = 0; round < ROUNDS; round++) {
            const uint64_t seed = mix((uint64_t)round * 8 + s);
            one[round] = get_one_by_one(store, records, count, seed);
            many[round] = get_together(store, records, count, mix(seed), sizes[s]);
        }
        snprintf(what, sizeof what, "kv_get_many, %zu keys", sizes[s]);
        report(what, one, many);
    }
    OK(kv_close(store));
}

int main(int argc, char **argv)
{
    const uint64_t records = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    char path[4096];
    kv_store *store;
    kv_batch *batch;
    if (records == 0) {
        fprintf(stderr, "usage: calls DIR RECORDS\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/gets", argv[1]);
    OK(kv_open(path, NULL, &store));
    OK(kv_batch_new(&batch));
    set_in_batches(store, batch, 0, records);
    kv_batch_free(batch);
    OK(kv_close(store));
    printf("%llu records\n", (unsigned long long)records);
    gets(path, records);
    batches(argv[1], KV_SYNC_OS, 1000000, 1000000, "batches of 1,000");
    batches(argv[1], KV_SYNC_ALWAYS, 500, 100000, "batches of 1,000, KV_SYNC_ALWAYS");
    return 0;
}
