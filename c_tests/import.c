/*
 * Import of the logs of the reference engine, made here by hand: with and without a header, torn at every byte, and
 * with garbage inside.
 */
#include "report.h"

struct log {
    uint8_t bytes[4096];
    size_t len;
    size_t ends[16]; /* where each record ends; the first entry is where the first begins */
    size_t records;
};

static void put(struct log *log, const void *data, size_t len) {
    CHECK(log->len + len <= sizeof log->bytes);
    if (len > 0) memcpy(log->bytes + log->len, data, len);
    log->len += len;
}

static void put_number(struct log *log, uint64_t number) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(number >> (8 * i));
    put(log, bytes, 8);
}

/* `value` NULL: a tombstone. */
static void put_record(struct log *log, const char *key, const char *value) {
    size_t key_len = strlen(key), value_len = value ? strlen(value) : 0;
    put_number(log, 8 + 8 + key_len + 1 + (value ? 8 + value_len : 0));
    put_number(log, UINT64_C(1700000000123));
    put_number(log, key_len);
    put(log, key, key_len);
    put(log, value ? "\1" : "\0", 1);
    if (value) {
        put_number(log, value_len);
        put(log, value, value_len);
    }
    log->ends[++log->records] = log->len;
}

/* Numbered like the writes. */
enum { WRITES = 7 };

static struct log make_log(bool header) {
    struct log log = {.len = 0};
    if (header) {
        put(&log, "KVS1", 4);
        put_number(&log, 1 << 20);
    }
    log.ends[0] = log.len;
    put_record(&log, "one", "1");
    put_record(&log, "two", "2");
    put_record(&log, "", "");
    put_record(&log, "one", NULL);
    put_record(&log, "two", "second");
    put_record(&log, "never there", NULL);
    put_record(&log, "three", "the last");
    COMPARE(log.records, ==, WRITES);
    return log;
}

/* What the first so many writes come to. */
static void check(kv_store *store, size_t writes) {
    if (writes >= 1 && writes < 4) HAS(store, "one", "1");
    else HAS_NOT(store, "one");
    if (writes >= 5) HAS(store, "two", "second");
    else if (writes >= 2) HAS(store, "two", "2");
    else HAS_NOT(store, "two");
    if (writes >= 3) HAS(store, "", "");
    else HAS_NOT(store, "");
    HAS_NOT(store, "never there");
    if (writes >= 7) HAS(store, "three", "the last");
    else HAS_NOT(store, "three");
}

static void clear(kv_store *store) {
    const char *keys[] = {"one", "two", "", "three"};
    for (size_t i = 0; i < 4; i++) CHECK(del_text(store, keys[i]) >= 0);
    check(store, 0);
}

static void whole(kv_store *store, const char *path, bool header) {
    struct log log = make_log(header);
    uint64_t appended;
    write_file(path, log.bytes, log.len);
    for (int again = 0; again < 2; again++) {
        kv_report *report;
        struct kv_report_totals totals;
        OK(kv_import(store, path, &report));
        check_report(report);
        totals = totals_of(report);
        COMPARE(totals.records, ==, WRITES);
        COMPARE(totals.tombstones, ==, 2);
        COMPARE(totals.bytes, ==, log.len);
        COMPARE(totals.problems, ==, 0);
        kv_report_free(report);
        check(store, WRITES);
    }
    /* It goes on top of what is there, and a failed one changes nothing. */
    OK(set_text(store, "another", "stays"));
    OK(kv_import(store, path, NULL));
    HAS(store, "another", "stays");
    OK(del_text(store, "another"));
    appended = stats_of(store).keys;
    write_file(path, "# my notes\n\nnothing to import here\n", 35);
    STATUS(kv_import(store, path, NULL), KV_ERR_FORMAT);
    COMPARE(stats_of(store).keys, ==, appended);
    check(store, WRITES);
    clear(store);
}

static void torn(kv_store *store, const char *path, bool header) {
    struct log log = make_log(header);
    for (size_t len = log.ends[0]; len <= log.len; len++) {
        size_t writes = WRITES;
        kv_report *report;
        while (log.ends[writes] > len) writes--;
        DOING("header %d, cut to %zu", header, len);
        write_file(path, log.bytes, len);
        OK(kv_import(store, path, &report));
        COMPARE(kv_report_len(report), ==, log.ends[writes] != len);
        if (log.ends[writes] != len) CHECK(has_problem(report, path, log.ends[writes]));
        COMPARE(totals_of(report).torn_bytes, ==, len - log.ends[writes]);
        kv_report_free(report);
        check(store, writes);
        /* With the rest there, it is as if it had never been torn. */
        write_file(path, log.bytes, log.len);
        if (len % 16 == 0) {
            OK(kv_import(store, path, NULL));
            check(store, WRITES);
        }
        clear(store);
    }
}

static void garbage(kv_store *store, const char *path, bool header) {
    static const struct { size_t at; uint8_t flip; } flips[] = {{0, 1}, {0, 0x80}, {3, 1}, {7, 0x80}, {16, 1}, {19, 2}};
    for (size_t record = 0; record < WRITES; record++) {
        for (size_t i = 0; i < sizeof flips / sizeof *flips; i++) {
            struct log log = make_log(header);
            kv_report *report;
            char message[512];
            DOING("header %d, record %zu, flip %zu", header, record, i);
            log.bytes[log.ends[record] + flips[i].at] ^= flips[i].flip;
            write_file(path, log.bytes, log.len);
            if (record == 0 && !header) {
                STATUS(kv_import(store, path, &report), KV_ERR_FORMAT);
                CHECK(report == NULL);
            } else {
                STATUS(kv_import(store, path, &report), KV_ERR_CORRUPT);
                kv_last_error(message, sizeof message);
                CHECK(strstr(message, path) != NULL);
                CHECK(has_problem(report, path, log.ends[record]));
                check_report(report);
                kv_report_free(report);
            }
            check(store, record);
            clear(store);
        }
    }
}

static void arguments(kv_store *store, const char *dir, const char *path) {
    kv_report *report = (kv_report *)&path;
    struct log log = make_log(true);
    int left = 0;
    kv_store *reader;
    write_file(path, log.bytes, log.len);
    STATUS(kv_import(NULL, path, &report), KV_ERR_INVALID);
    CHECK(report == NULL);
    STATUS(kv_import(store, NULL, NULL), KV_ERR_INVALID);
    STATUS(kv_import(store, "", NULL), KV_ERR_INVALID);
    STATUS(kv_import(store, "/", NULL), KV_ERR_IO);
    STATUS(kv_import(store, path_in(dir, "nothing"), NULL), KV_ERR_IO);
    STATUS(kv_import(store, dir, NULL), KV_ERR_IO);
    report = (kv_report *)&path;
    STATUS(kv_import_with(store, path, stop_later, &left, &report), KV_ERR_CANCELLED);
    CHECK(report == NULL);
    check(store, 0);
    left = 1000;
    OK(kv_import_with(store, path, stop_later, &left, NULL));
    CHECK(left < 1000);
    OK(kv_close(store));
    reader = open_with(path_in(dir, "db"), WITH({KV_OPT_READ_ONLY, 1}));
    STATUS(kv_import(reader, path, NULL), KV_ERR_READ_ONLY);
    check(reader, WRITES);
    OK(kv_close(reader));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv), *path = path_in(dir, "old.log");
    kv_store *store = open_store(path_in(dir, "db"));
    for (int header = 0; header < 2; header++) {
        whole(store, path, header);
        torn(store, path, header);
        garbage(store, path, header);
    }
    arguments(store, dir, path);
    return 0;
}
