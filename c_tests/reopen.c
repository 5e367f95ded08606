/*
 * Closing and opening: everything is there again, opening is fast, and a closed database takes no more than it needs.
 */
#include "files.h"

enum { KEYS = 500 };
static uint64_t versions[KEYS];

static size_t length(uint64_t version) {
    return (size_t)(version * 37 % 700);
}

static void change(kv_store *store, uint64_t round) {
    uint64_t random = round * 7919 + 1;
    for (int i = 0; i < 400; i++) {
        uint64_t key = next_random(&random) % KEYS;
        if (next_random(&random) % 4 == 0) {
            STATUS(del_numbered(store, key), versions[key] ? KV_OK : KV_NOT_FOUND);
            versions[key] = 0;
        } else {
            versions[key] = round * 1000 + i + 1;
            OK(set_numbered(store, key, versions[key], length(versions[key])));
        }
    }
}

static void check(kv_store *store) {
    for (uint64_t key = 0; key < KEYS; key++) {
        if (versions[key]) {
            HAS_NUMBERED(store, key, versions[key], length(versions[key]));
        } else {
            HAS_NOT_NUMBERED(store, key);
        }
    }
}

static void many_rounds(const char *path) {
    memset(versions, 0, sizeof versions);
    for (int round = 0; round < (quick() ? 6 : 30); round++) {
        kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, round % 3 ? 64 << 20 : 32 << 10},
                                               {KV_OPT_BACKGROUND, round % 2}, {KV_OPT_COMPACT_THRESHOLD, 200000},
                                               {KV_OPT_SYNC, round % 10 == 9 ? KV_SYNC_ALWAYS : KV_SYNC_OS}));
        struct kv_recovery_info info = recovery_of(store);
        COMPARE(info.clean, ==, 1);
        COMPARE(info.torn_bytes, ==, 0);
        COMPARE(info.damaged_records, ==, 0);
        COMPARE(info.removed_segments, ==, 0);
        check(store);
        change(store, round + 1);
        if (round % 5 == 4) OK(kv_compact(store));
        check(store);
        OK(kv_close(store));
    }
}

/* After a clean close, hints say all that opening needs. */
static void opening_scans_nothing(const char *path) {
    kv_store *store = open_store(path);
    struct kv_recovery_info info = recovery_of(store);
    COMPARE(info.clean, ==, 1);
    COMPARE(info.scanned_records, ==, 0);
    COMPARE(info.scanned_bytes, ==, 0);
    COMPARE(info.rejected_hints, ==, 0);
    COMPARE(info.orphan_files, ==, 0);
    OK(kv_close(store));
}

/* The hints are a help, not the truth: without them all is found by scanning. */
static void without_hints(const char *path) {
    struct listing hints = list_dir(path, ".hint");
    kv_store *store;
    for (size_t i = 0; i < hints.count; i++) CHECK(unlink(path_in(path, hints.names[i])) == 0);
    store = open_store(path);
    check(store);
    if (hints.count > 0) COMPARE(recovery_of(store).scanned_records, >, 0);
    OK(kv_close(store));
    free_listing(hints);
    opening_scans_nothing(path);
}

static void closed_it_takes_what_its_records_take(const char *path) {
    kv_store *store = open_store(path);
    struct kv_stats stats;
    OK(set_text(store, "one more", "so that there is an active segment"));
    stats = stats_of(store);
    OK(kv_close(store));
    /* A sync mark and the like may be written by closing; space reserved ahead may not stay. */
    COMPARE(size_of_files(path, ".log", false), <=, stats.log_bytes + 4096);
    COMPARE(size_of_files(path, ".log", true), <=, stats.log_bytes + 4096 * (stats.segments + 2));
}

static void opening_and_closing_changes_nothing(const char *path) {
    uint64_t size, log_bytes;
    kv_store *store = open_store(path);
    OK(kv_close(store));
    store = open_store(path);
    log_bytes = stats_of(store).log_bytes;
    OK(kv_close(store));
    size = size_of_files(path, "", false);
    for (int i = 0; i < 50; i++) OK(kv_close(open_store(path)));
    store = open_store(path);
    /* Not even a few bytes each time. */
    COMPARE(stats_of(store).log_bytes, <=, log_bytes + 100);
    OK(kv_close(store));
    COMPARE(size_of_files(path, "", false), <=, size + 200);
}

int main(int argc, char **argv) {
    const char *path = path_in(data_dir(argc, argv), "db");
    many_rounds(path);
    opening_scans_nothing(path);
    without_hints(path);
    closed_it_takes_what_its_records_take(path);
    opening_and_closing_changes_nothing(path);
    return 0;
}
