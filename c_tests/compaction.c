/*
 * Compaction: garbage goes, everything else stays, deleted stays deleted, and it stops when there is nothing to gain.
 */
#include "files.h"

enum { KEYS = 300 };
static uint64_t versions[KEYS];

static void set_version(kv_store *store, uint64_t key, uint64_t version) {
    versions[key] = version;
    OK(set_numbered(store, key, version, 100 + version % 200));
}

static void check(kv_store *store) {
    for (uint64_t key = 0; key < KEYS; key++) {
        if (versions[key]) {
            HAS_NUMBERED(store, key, versions[key], 100 + versions[key] % 200);
        } else {
            HAS_NOT_NUMBERED(store, key);
        }
    }
}

static void only_live_records_are_left(const char *path) {
    kv_store *store = open_store(path);
    struct kv_stats before, after;
    memset(versions, 0, sizeof versions);
    for (uint64_t version = 1; version <= 20; version++) {
        for (uint64_t key = 0; key < KEYS; key++) set_version(store, key, version);
    }
    for (uint64_t key = 0; key < KEYS; key += 3) {
        OK(del_numbered(store, key));
        versions[key] = 0;
    }
    before = stats_of(store);
    OK(kv_compact(store));
    after = stats_of(store);
    check(store);
    COMPARE(after.keys, ==, KEYS - KEYS / 3);
    COMPARE(after.dead_bytes, ==, 0);
    COMPARE(after.tombstone_bytes, ==, 0);
    COMPARE(after.log_bytes, <, before.log_bytes / 10);
    COMPARE(after.log_bytes, <=, after.live_bytes + 64 * after.segments + 256);
    /* A record is at least its key and value, and at most a little more. */
    COMPARE(after.live_bytes, >=, after.keys * (12 + 100));
    COMPARE(after.live_bytes, <=, after.keys * (12 + 300 + 60));
    OK(kv_close(store));
    COMPARE(size_of_files(path, ".log", false), <, before.log_bytes / 5);
    store = open_store(path);
    check(store);
    COMPARE(stats_of(store).keys, ==, KEYS - KEYS / 3);
    OK(kv_close(store));
}

static void all_deleted(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 8192}));
    memset(versions, 0, sizeof versions);
    for (uint64_t key = 0; key < KEYS; key++) set_version(store, key, 1);
    OK(kv_compact(store));
    OK(kv_close(store));
    store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 8192}));
    for (uint64_t key = 0; key < KEYS; key++) OK(del_numbered(store, key));
    memset(versions, 0, sizeof versions);
    OK(kv_compact(store));
    COMPARE(stats_of(store).keys, ==, 0);
    COMPARE(stats_of(store).live_bytes, ==, 0);
    COMPARE(stats_of(store).log_bytes, <=, 1024);
    OK(kv_close(store));
    store = open_store(path);
    check(store);
    COMPARE(stats_of(store).keys, ==, 0);
    OK(kv_close(store));
}

static void compacting_again_writes_nothing(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 16384}, {KV_OPT_COMPACT_THRESHOLD, 0}));
    uint64_t written;
    for (uint64_t version = 1; version <= 5; version++) {
        for (uint64_t key = 0; key < KEYS; key++) set_version(store, key, version);
    }
    OK(kv_compact(store));
    OK(kv_compact(store));
    written = stats_of(store).compacted_bytes;
    for (int i = 0; i < 10; i++) {
        OK(kv_compact(store));
        STATUS(kv_maintain(store, 1 << 20), KV_DONE);
    }
    COMPARE(stats_of(store).compacted_bytes, ==, written);
    check(store);
    OK(kv_close(store));
}

/* Segments are compacted one by one, some here, some there, reopening in between: what was deleted or overwritten in
 * a segment that stays must not come back from one that was rewritten. */
static void partial_compactions(const char *path) {
    uint64_t random = 4711;
    memset(versions, 0, sizeof versions);
    for (int round = 0; round < (quick() ? 3 : 6); round++) {
        kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 8192}, {KV_OPT_COMPACT_THRESHOLD, 0},
                                               {KV_OPT_BACKGROUND, 0}, {KV_OPT_GARBAGE_RATIO, 10 + round % 80}));
        for (int i = 0; i < 500; i++) {
            uint64_t key = next_random(&random) % KEYS, what = next_random(&random) % 10;
            if (what < 5) {
                set_version(store, key, (uint64_t)round * 10000 + i + 1);
            } else if (what < 9) {
                STATUS(del_numbered(store, key), versions[key] ? KV_OK : KV_NOT_FOUND);
                versions[key] = 0;
            } else {
                CHECK(kv_maintain(store, 4096) >= 0);
            }
        }
        check(store);
        OK(kv_close(store));
        store = open_with(path, WITH({KV_OPT_BACKGROUND, 0}));
        check(store);
        OK(kv_close(store));
    }
}

static void maintain_comes_to_an_end(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 8192}, {KV_OPT_COMPACT_THRESHOLD, 0},
                                           {KV_OPT_BACKGROUND, 0}));
    int32_t status = KV_OK;
    for (uint64_t version = 1; version <= 5; version++) {
        for (uint64_t key = 0; key < KEYS; key++) set_version(store, key, version);
    }
    for (int i = 0; i < 10000 && status == KV_OK; i++) status = kv_maintain(store, 4096);
    STATUS(status, KV_DONE);
    STATUS(kv_maintain(store, UINT64_MAX), KV_DONE);
    STATUS(kv_maintain(store, 0), KV_DONE);
    check(store);
    OK(kv_close(store));
}

/* Promise: log files settle under 2 * live + threshold + 32 MiB, without a call, and take one segment more at most while
   they are compacted. */
static void space_is_bounded(const char *path, uint64_t background) {
    enum { SEGMENT = 4 << 20 };
    kv_store *store = open_with(path, WITH({KV_OPT_BACKGROUND, background}, {KV_OPT_SEGMENT_SIZE, SEGMENT}));
    uint64_t total = quick() ? 8 << 20 : 160 << 20, value = 8192, keys = 256, bound, on_disk;
    struct kv_stats stats;
    double deadline;
    for (uint64_t written = 0, i = 0; written < total; written += value, i++) {
        OK(set_numbered(store, i % keys, i, value));
        if (i % 64) continue;
        stats = stats_of(store);
        COMPARE(stats.log_bytes, <=, 2 * stats.live_bytes + (1 << 20) + (32 << 20) + SEGMENT);
    }
    deadline = now() + 20;
    do {
        stats = stats_of(store);
        bound = 2 * stats.live_bytes + (1 << 20) + (32 << 20);
        /* On disk there may be space reserved for appends, too. */
        on_disk = size_of_files(path, ".log", true);
        if (stats.log_bytes <= bound && on_disk <= bound + (16 << 20)) break;
        sleep_ms(20);
    } while (now() < deadline);
    COMPARE(stats.log_bytes, <=, bound);
    COMPARE(on_disk, <=, bound + (16 << 20));
    OK(kv_close(store));
    COMPARE(size_of_files(path, ".log", true), <=, bound);
}

/* When kv_compact returns, the disk has the space back, though deleting files is done aside. */
static void space_is_back_at_once(const char *path) {
    enum { COUNT = 64, LEN = 64 << 10 };
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 4 << 20}));
    struct kv_stats stats;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) OK(set_numbered(store, i, round, LEN));
    }
    OK(kv_compact(store));
    stats = stats_of(store);
    COMPARE(stats.compactions, >, 0);
    COMPARE(stats.pinned_bytes, ==, 0);
    COMPARE(size_of_files(path, ".log", true), <=, COUNT * (uint64_t)LEN + (256 << 10));
    for (int i = 0; i < COUNT; i++) HAS_NUMBERED(store, i, 2, LEN);
    OK(kv_close(store));
}

/* Below the threshold nothing is rewritten, however much of it is garbage. */
static void nothing_happens_below_the_threshold(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_COMPACT_THRESHOLD, 16 << 20}, {KV_OPT_SEGMENT_SIZE, 16384}));
    for (int i = 0; i < 2000; i++) OK(set_numbered(store, 1, i, 200));
    for (int i = 0; i < 1000 && kv_maintain(store, UINT64_MAX) == KV_OK; i++) sleep_ms(1);
    STATUS(kv_maintain(store, UINT64_MAX), KV_DONE);
    COMPARE(stats_of(store).compactions, ==, 0);
    COMPARE(stats_of(store).compacted_bytes, ==, 0);
    OK(kv_close(store));
}

/* Small segments are merged, so that their number does not grow for ever, though none has any garbage. */
static void small_segments_are_merged(const char *path) {
    kv_store *store;
    int32_t status = KV_OK;
    for (int i = 0; i < 40; i++) {
        store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 4096}, {KV_OPT_BACKGROUND, 0}));
        for (int j = 0; j < 20; j++) OK(set_numbered(store, i * 20 + j, 1, 200));
        OK(kv_close(store));
    }
    store = open_with(path, WITH({KV_OPT_COMPACT_THRESHOLD, 0}, {KV_OPT_BACKGROUND, 0}));
    for (int i = 0; i < 1000 && status == KV_OK; i++) status = kv_maintain(store, 1 << 20);
    STATUS(status, KV_DONE);
    OK(kv_compact(store));
    COMPARE(stats_of(store).segments, <=, 20);
    for (int i = 0; i < 800; i++) HAS_NUMBERED(store, i, 1, 200);
    OK(kv_close(store));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    only_live_records_are_left(path_in(dir, "live"));
    all_deleted(path_in(dir, "deleted"));
    compacting_again_writes_nothing(path_in(dir, "again"));
    partial_compactions(path_in(dir, "partial"));
    maintain_comes_to_an_end(path_in(dir, "maintain"));
    nothing_happens_below_the_threshold(path_in(dir, "threshold"));
    small_segments_are_merged(path_in(dir, "merge"));
    space_is_back_at_once(path_in(dir, "at-once"));
    space_is_bounded(path_in(dir, "bounded"), 1);
    space_is_bounded(path_in(dir, "bounded-inline"), 0);
    return 0;
}
