/*
 * Salvage: a new database with everything that can be read of a damaged one, which stays as it is.
 */
#include "report.h"

enum { KEYS = 30, DELETED = 7, LEN = 60, HEADER = 64 };

static void make(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_BACKGROUND, 0}, {KV_OPT_SEGMENT_SIZE, 4096}));
    for (uint64_t i = 0; i < KEYS; i++) OK(set_numbered(store, i, 1, LEN));
    OK(kv_compact(store));
    OK(del_numbered(store, DELETED));
    for (uint64_t i = 0; i < KEYS; i += 2) OK(set_numbered(store, i, 2, LEN));
    OK(kv_close(store));
}

static uint64_t newest(uint64_t key) {
    return key % 2 == 0 ? 2 : 1;
}

/* Everything is there but the key `lost`, which may have its older value if there was one. */
static void check(const char *path, uint64_t lost) {
    kv_store *store;
    OK(kv_verify(path, NULL));
    store = open_with(path, WITH({KV_OPT_READ_ONLY, 1}));
    for (uint64_t i = 0; i < KEYS; i++) {
        if (i == lost && newest(i) == 1) HAS_NOT_NUMBERED(store, i);
        else if (i == lost) HAS_NUMBERED(store, i, 1, LEN);
        else if (i == DELETED) HAS_NOT_NUMBERED(store, i);
        else HAS_NUMBERED(store, i, newest(i), LEN);
    }
    OK(kv_close(store));
    remove_dir(path);
}

static struct kv_report_totals salvage(const char *path, const char *to, uint64_t lost) {
    uint64_t before = fingerprint(path);
    struct kv_report_totals totals;
    kv_report *report = (kv_report *)&before;
    OK(kv_salvage(path, to, &report));
    COMPARE(fingerprint(path), ==, before);
    check_report(report);
    totals = totals_of(report);
    kv_report_free(report);
    check(to, lost);
    return totals;
}

/* No file but the segments is needed. */
static void without_files(const char *path, const char *copy, const char *to) {
    struct listing files = list_dir(path, "");
    for (size_t i = 0; i < files.count; i++) {
        struct kv_report_totals totals;
        if (ends_with(files.names[i], ".log")) continue;
        DOING("without %s", files.names[i]);
        copy_database(path, copy);
        CHECK(unlink(path_in(copy, files.names[i])) == 0);
        totals = salvage(copy, to, KEYS);
        COMPARE(totals.problems, ==, strcmp(files.names[i], "MANIFEST") == 0);
        COMPARE(totals.written_records, ==, KEYS - 1);
        write_file(path_in(copy, files.names[i]), "garbage", 7);
        totals = salvage(copy, to, KEYS);
        COMPARE(totals.lost_bytes, ==, 0);
    }
    free_listing(files);
}

/* Each damaged record costs itself only. */
static void damaged_records(const char *path, const char *copy, const char *to) {
    struct listing logs = list_dir(path, ".log");
    int tried = 0;
    for (uint64_t key = 0; key < KEYS; key++) {
        uint8_t value[LEN];
        fill(value, LEN, key * 1000003 + newest(key));
        for (size_t log = 0; log < logs.count && key != DELETED; log++) {
            struct bytes content = read_file(path_in(path, logs.names[log]));
            for (size_t at = HEADER; at + LEN <= content.len; at++) {
                struct kv_report_totals totals;
                if (memcmp(content.data + at, value, LEN) != 0) continue;
                DOING("key %d in %s at %zu", (int)key, logs.names[log], at);
                copy_database(path, copy);
                /* A bit of the value, or the whole of what stands before it. */
                if (key % 3 == 0) content.data[at + key] ^= 4;
                else memset(content.data + at - 45, 0xee, 45);
                write_file(path_in(copy, logs.names[log]), content.data, content.len);
                totals = salvage(copy, to, key);
                COMPARE(totals.lost_bytes, ==, 8 + 8 + 8 + 12 + 1 + 8 + LEN + 4);
                COMPARE(totals.lost_records, ==, 1);
                tried++;
                break;
            }
            free(content.data);
        }
    }
    COMPARE(tried, ==, KEYS - 1);
    free_listing(logs);
}

static void headers_and_a_missing_segment(const char *path, const char *copy, const char *to) {
    struct listing logs = list_dir(path, ".log");
    kv_report *report;
    CHECK(logs.count > 1);
    copy_database(path, copy);
    for (size_t i = 0; i < logs.count; i++) {
        struct bytes content = read_file(path_in(copy, logs.names[i]));
        memset(content.data, 0, HEADER);
        write_file(path_in(copy, logs.names[i]), content.data, content.len);
        free(content.data);
    }
    COMPARE(salvage(copy, to, KEYS).problems, ==, logs.count);
    for (size_t i = 0; i < logs.count; i++) {
        copy_database(path, copy);
        CHECK(unlink(path_in(copy, logs.names[i])) == 0);
        OK(kv_salvage(copy, to, &report));
        CHECK(has_problem(report, logs.names[i], 0));
        COMPARE(totals_of(report).lost_bytes, ==, size_of_files(path, logs.names[i], false) - HEADER);
        kv_report_free(report);
        OK(kv_verify(to, NULL));
        remove_dir(to);
    }
    free_listing(logs);
}

static void arguments(const char *dir, const char *path, const char *to) {
    kv_report *report = (kv_report *)&dir;
    kv_store *store;
    for (int stop = 0; stop < 3; stop++) {
        int left = stop;
        STATUS(kv_salvage_with(path, to, stop_later, &left, &report), KV_ERR_CANCELLED);
        CHECK(report == NULL);
        CHECK(access(to, F_OK) != 0);
    }
    STATUS(kv_salvage(NULL, to, NULL), KV_ERR_INVALID);
    STATUS(kv_salvage(path, NULL, NULL), KV_ERR_INVALID);
    STATUS(kv_salvage("", to, NULL), KV_ERR_INVALID);
    STATUS(kv_salvage(path, "", NULL), KV_ERR_INVALID);
    STATUS(kv_salvage(path, path, NULL), KV_ERR_EXISTS);
    STATUS(kv_salvage(path, dir, NULL), KV_ERR_EXISTS);
    STATUS(kv_salvage(path, path_in(path, "new"), NULL), KV_ERR_INVALID);
    STATUS(kv_salvage(path_in(dir, "nothing"), to, NULL), KV_ERR_NOT_A_DATABASE);
    STATUS(kv_salvage(dir, path_in("/nonexistent", "new"), NULL), KV_ERR_IO);
    CHECK(mkdir(path_in(dir, "empty"), 0777) == 0);
    STATUS(kv_salvage(path_in(dir, "empty"), to, NULL), KV_ERR_NOT_A_DATABASE);
    store = open_store(path);
    STATUS(kv_salvage(path, to, NULL), KV_ERR_LOCKED);
    OK(kv_close(store));
    CHECK(access(to, F_OK) != 0);
    OK(kv_salvage(path, to, NULL));
    STATUS(kv_salvage(path, to, NULL), KV_ERR_EXISTS);
    check(to, KEYS);
}

/* The old database may be on a disk that cannot be written to. */
static void read_only_source(const char *path, const char *copy, const char *to) {
    copy_database(path, copy);
    CHECK(unlink(path_in(copy, "LOCK")) == 0);
    CHECK(chmod(copy, 0555) == 0);
    salvage(copy, to, KEYS);
    CHECK(chmod(copy, 0755) == 0);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    const char *path = path_in(dir, "db"), *copy = path_in(dir, "copy"), *to = path_in(dir, "new");
    make(path);
    COMPARE(salvage(path, to, KEYS).problems, ==, 0);
    without_files(path, copy, to);
    damaged_records(path, copy, to);
    headers_and_a_missing_segment(path, copy, to);
    read_only_source(path, copy, to);
    arguments(dir, path, to);
    return 0;
}
