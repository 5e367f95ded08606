/*
 * Options: every one, its bounds, and that what is not an option or not a value is refused and changes nothing.
 */
#include "check.h"

static void bounds(void) {
    static const struct {
        int32_t option;
        uint64_t least, most;
    } RANGES[] = {
        {KV_OPT_COMPACT_THRESHOLD, 0, UINT64_MAX},
        {KV_OPT_GARBAGE_RATIO, 1, 100},
        {KV_OPT_SEGMENT_SIZE, 4096, UINT64_C(4) << 30},
        {KV_OPT_SYNC, KV_SYNC_OS, KV_SYNC_ALWAYS},
        {KV_OPT_SYNC_INTERVAL_MS, 1, UINT64_MAX},
        {KV_OPT_IO, KV_IO_AUTO, KV_IO_SYSCALL},
        {KV_OPT_BACKGROUND, 0, 1},
        {KV_OPT_CREATE_IF_MISSING, 0, 1},
        {KV_OPT_ERROR_IF_EXISTS, 0, 1},
        {KV_OPT_READ_ONLY, 0, 1},
        {KV_OPT_VERIFY_READS, 0, 1},
    };
    kv_options *options = kv_options_new();
    CHECK(options != NULL);
    for (size_t i = 0; i < sizeof RANGES / sizeof *RANGES; i++) {
        OK(kv_options_set(options, RANGES[i].option, RANGES[i].least));
        OK(kv_options_set(options, RANGES[i].option, RANGES[i].most));
        if (RANGES[i].least > 0) {
            STATUS(kv_options_set(options, RANGES[i].option, RANGES[i].least - 1), KV_ERR_INVALID);
            STATUS(kv_options_set(options, RANGES[i].option, 0), KV_ERR_INVALID);
        }
        if (RANGES[i].most < UINT64_MAX) {
            STATUS(kv_options_set(options, RANGES[i].option, RANGES[i].most + 1), KV_ERR_INVALID);
            STATUS(kv_options_set(options, RANGES[i].option, UINT64_MAX), KV_ERR_INVALID);
            STATUS(kv_options_set(options, RANGES[i].option, (UINT64_C(1) << 32) + RANGES[i].least + (RANGES[i].most >> 32 << 32)),
                   KV_ERR_INVALID);
        }
    }
    static const int32_t UNKNOWN[] = {0, -1, 12, 1000, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof UNKNOWN / sizeof *UNKNOWN; i++) {
        STATUS(kv_options_set(options, UNKNOWN[i], 1), KV_ERR_INVALID);
    }
    kv_options_free(options);
    kv_options_free(NULL);
}

/* An option at either end of its range gives a store that works. */
static void works_with(const char *dir, int number, const struct setting *settings) {
    char name[32];
    kv_store *store;
    snprintf(name, sizeof name, "works-%d", number);
    DOING("store number %d", number);
    for (int round = 0; round < 2; round++) {
        store = open_with(path_in(dir, name), settings);
        for (int i = 0; i < 300; i++) OK(set_numbered(store, i % 30, i + round, 200));
        OK(del_numbered(store, 7));
        for (int i = 0; i < 10; i++) (void)kv_maintain(store, 1000);
        for (int i = 0; i < 30; i++) {
            if (i != 7) HAS_NUMBERED(store, i, 270 + i + round, 200);
        }
        HAS_NOT_NUMBERED(store, 7);
        OK(kv_sync(store));
        OK(kv_close(store));
    }
}

static void every_end_of_every_range_works(const char *dir) {
    int n = 0;
    works_with(dir, n++, NULL);
    works_with(dir, n++, WITH({KV_OPT_COMPACT_THRESHOLD, 0}));
    works_with(dir, n++, WITH({KV_OPT_COMPACT_THRESHOLD, UINT64_MAX}));
    works_with(dir, n++, WITH({KV_OPT_GARBAGE_RATIO, 1}, {KV_OPT_COMPACT_THRESHOLD, 0}, {KV_OPT_SEGMENT_SIZE, 4096}));
    works_with(dir, n++, WITH({KV_OPT_GARBAGE_RATIO, 100}, {KV_OPT_COMPACT_THRESHOLD, 0}, {KV_OPT_SEGMENT_SIZE, 4096}));
    works_with(dir, n++, WITH({KV_OPT_SEGMENT_SIZE, UINT64_C(4) << 30}));
    works_with(dir, n++, WITH({KV_OPT_SYNC, KV_SYNC_INTERVAL}, {KV_OPT_SYNC_INTERVAL_MS, 1}));
    works_with(dir, n++, WITH({KV_OPT_SYNC, KV_SYNC_INTERVAL}, {KV_OPT_SYNC_INTERVAL_MS, UINT64_MAX}));
    works_with(dir, n++, WITH({KV_OPT_SYNC, KV_SYNC_INTERVAL}, {KV_OPT_BACKGROUND, 0}, {KV_OPT_SYNC_INTERVAL_MS, 1}));
    works_with(dir, n++, WITH({KV_OPT_SYNC, KV_SYNC_ALWAYS}));
    works_with(dir, n++, WITH({KV_OPT_IO, KV_IO_SYSCALL}));
    works_with(dir, n++, WITH({KV_OPT_BACKGROUND, 0}, {KV_OPT_COMPACT_THRESHOLD, 0}, {KV_OPT_SEGMENT_SIZE, 4096}));
    works_with(dir, n++, WITH({KV_OPT_VERIFY_READS, 0}));
}

static void contradictions(const char *path) {
    kv_store *store = (kv_store *)&store;
    STATUS(try_open(path, WITH({KV_OPT_READ_ONLY, 1}, {KV_OPT_ERROR_IF_EXISTS, 1}), &store), KV_ERR_INVALID);
    CHECK(store == NULL);
    CHECK(access(path, F_OK) != 0);
}

/* Options can be used again, changed in between, and freed while the store is open. */
static void options_are_not_kept(const char *dir) {
    kv_options *options = kv_options_new();
    kv_store *a, *b;
    CHECK(options != NULL);
    OK(kv_options_set(options, KV_OPT_IO, KV_IO_SYSCALL));
    OK(kv_open(path_in(dir, "a"), options, &a));
    STATUS(kv_options_set(options, KV_OPT_IO, 2), KV_ERR_INVALID);
    OK(kv_open(path_in(dir, "b"), options, &b));
    kv_options_free(options);
    COMPARE(stats_of(a).mapped, ==, 0);
    COMPARE(stats_of(b).mapped, ==, 0);
    OK(set_text(a, "k", "v"));
    HAS(a, "k", "v");
    OK(kv_close(a));
    OK(kv_close(b));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    bounds();
    contradictions(path_in(dir, "contradictions"));
    options_are_not_kept(dir);
    every_end_of_every_range_works(dir);
    return 0;
}
