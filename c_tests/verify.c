/*
 * Verification finds nothing in a sound database, whether closed, open or left by a kill; it names the file and the
 * place of what is damaged; and it writes nothing.
 */
#include "report.h"

enum { KEYS = 40, LEN = 100, HEADER = 64, RECORD = 8 + 8 + 8 + 12 + 1 + 8 + LEN + 4 };

static void write_some(kv_store *store, uint64_t version) {
    for (uint64_t i = 0; i < KEYS; i++) OK(set_numbered(store, i, version, LEN));
}

static void make(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_BACKGROUND, 0}, {KV_OPT_SEGMENT_SIZE, 4096}));
    write_some(store, 1);
    OK(del_numbered(store, 3));
    OK(kv_compact(store));
    write_some(store, 2);
    OK(del_numbered(store, 4));
    OK(kv_close(store));
}

static void sound(const char *path) {
    uint64_t before = fingerprint(path);
    kv_report *report = (kv_report *)&before;
    struct kv_report_totals totals;
    OK(kv_verify(path, &report));
    COMPARE(fingerprint(path), ==, before);
    check_report(report);
    totals = totals_of(report);
    COMPARE(kv_report_len(report), ==, 0);
    COMPARE(totals.segments, >, 1);
    COMPARE(totals.records, >=, KEYS + 1);
    COMPARE(totals.tombstones, >=, 1);
    COMPARE(totals.bytes, ==, size_of_files(path, ".log", false));
    COMPARE(totals.lost_records + totals.lost_bytes + totals.torn_bytes, ==, 0);
    COMPARE(totals.unusable_hints + totals.orphan_files + totals.written_records, ==, 0);
    kv_report_free(report);
    OK(kv_verify(path, NULL));
}

static void damaged(const char *path, const char *copy) {
    struct listing files = list_dir(path, "");
    for (size_t i = 0; i < files.count; i++) {
        const char *name = files.names[i];
        struct bytes content = read_file(path_in(path, name));
        /* Of a log: in the second record of the frames. */
        size_t at = ends_with(name, ".log") ? HEADER + RECORD + 50 : content.len / 2;
        kv_report *report;
        char message[512];
        copy_database(path, copy);
        if (content.len > at && strcmp(name, "LOCK") != 0) {
            DOING("damage to %s", name);
            content.data[at] ^= 1;
            write_file(path_in(copy, name), content.data, content.len);
            if (ends_with(name, ".hint")) {
                OK(kv_verify(copy, &report));
                COMPARE(totals_of(report).unusable_hints, ==, 1);
            } else {
                STATUS(kv_verify(copy, &report), KV_ERR_CORRUPT);
                kv_last_error(message, sizeof message);
                CHECK(strstr(message, name) != NULL);
                COMPARE(kv_report_len(report), ==, 1);
                CHECK(has_problem(report, name, ends_with(name, ".log") ? HEADER + RECORD : 0));
                if (ends_with(name, ".log")) COMPARE(totals_of(report).lost_bytes, ==, RECORD);
                STATUS(kv_verify(copy, NULL), KV_ERR_CORRUPT);
            }
            check_report(report);
            kv_report_free(report);
        }
        free(content.data);
    }
    free_listing(files);
}

/* In a process that is killed: the tail has not been synced, and more has been reserved than is used. */
static void make_and_wait(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_BACKGROUND, 0}, {KV_OPT_SEGMENT_SIZE, 4096}));
    write_some(store, 1);
    OK(kv_sync(store));
    write_some(store, 2);
}

static void after_a_kill(const char *path) {
    kv_report *report;
    struct listing logs;
    struct bytes content;
    uint64_t before;
    in_a_killed_child(make_and_wait, path);
    before = fingerprint(path);
    OK(kv_verify(path, &report));
    COMPARE(fingerprint(path), ==, before);
    COMPARE(totals_of(report).records, ==, 2 * KEYS);
    kv_report_free(report);
    /* A torn end is no damage. */
    logs = list_dir(path, ".log");
    content = read_file(path_in(path, logs.names[logs.count - 1]));
    while (content.len > 0 && content.data[content.len - 1] == 0) content.len--;
    write_file(path_in(path, logs.names[logs.count - 1]), content.data, content.len - 30);
    OK(kv_verify(path, &report));
    COMPARE(totals_of(report).records, ==, 2 * KEYS - 1);
    COMPARE(totals_of(report).torn_bytes, >, 0);
    check_report(report);
    kv_report_free(report);
    free(content.data);
    free_listing(logs);
}

/* An open store: every record so far, and others can go on. */
static void open_store_too(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 4096}, {KV_OPT_COMPACT_THRESHOLD, 1}));
    struct listing logs;
    int left = 0;
    for (uint64_t version = 1; version < 20; version++) {
        kv_report *report;
        write_some(store, version);
        OK(kv_verify_store(store, &report));
        COMPARE(totals_of(report).records, >=, KEYS);
        check_report(report);
        kv_report_free(report);
    }
    OK(kv_verify_store(store, NULL));
    STATUS(kv_verify_store_with(store, stop_later, &left, NULL), KV_ERR_CANCELLED);
    STATUS(kv_verify(path, NULL), KV_ERR_LOCKED);
    OK(kv_compact(store));
    logs = list_dir(path, ".log");
    for (size_t i = 0; i < logs.count; i++) {
        /* By a call, as a broken disk would: the store reads the same bytes through its maps. */
        int file = open(path_in(path, logs.names[i]), O_WRONLY);
        CHECK(file >= 0 && pwrite(file, "x", 1, HEADER + 40) == 1);
        close(file);
    }
    {
        kv_report *report;
        STATUS(kv_verify_store(store, &report), KV_ERR_CORRUPT);
        CHECK(has_problem(report, logs.names[0], HEADER));
        kv_report_free(report);
    }
    free_listing(logs);
    OK(kv_close(store));
}

static void arguments(const char *dir, const char *path) {
    kv_report *report = (kv_report *)&dir;
    int left = 1;
    STATUS(kv_verify(NULL, &report), KV_ERR_INVALID);
    CHECK(report == NULL);
    STATUS(kv_verify("", &report), KV_ERR_INVALID);
    STATUS(kv_verify(path_in(dir, "nothing"), &report), KV_ERR_NOT_A_DATABASE);
    STATUS(kv_verify(path_in(path, "MANIFEST"), &report), KV_ERR_NOT_A_DATABASE);
    CHECK(mkdir(path_in(dir, "empty"), 0777) == 0);
    STATUS(kv_verify(path_in(dir, "empty"), &report), KV_ERR_NOT_A_DATABASE);
    COMPARE(list_dir(path_in(dir, "empty"), "").count, ==, 0);
    STATUS(kv_verify_store(NULL, &report), KV_ERR_INVALID);
    STATUS(kv_verify_store_with(NULL, NULL, NULL, NULL), KV_ERR_INVALID);
    report = (kv_report *)&dir;
    STATUS(kv_verify_with(path, stop_later, &left, &report), KV_ERR_CANCELLED);
    CHECK(report == NULL);
    without_a_report();
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv), *path = path_in(dir, "db");
    make(path);
    sound(path);
    damaged(path, path_in(dir, "copy"));
    sound(path);
    after_a_kill(path_in(dir, "killed"));
    open_store_too(path_in(dir, "open"));
    arguments(dir, path);
    return 0;
}
