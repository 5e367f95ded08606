/* scan: what is in a database. */
#include "kv.h"

#include <stdlib.h>

struct scan {
    enum form form;
    bool keys, null, count;
    uint64_t limit;
    struct bytes prefix, start, end;
};

static void print_field(const struct scan *scan, const uint8_t *data, size_t len, char end) {
    print_bytes(stdout, scan->form, data, len);
    putchar(scan->null ? '\0' : end);
}

static int print_items(kv_iter *iter, const struct scan *scan) {
    const uint8_t *key, *value;
    size_t key_len, value_len;
    uint64_t items = 0;
    int32_t status = KV_OK;
    while (items < scan->limit && output_works()) {
        status = kv_iter_next(iter, &key, &key_len, &value, &value_len);
        if (status != KV_OK) break;
        items++;
        if (scan->count) continue;
        print_field(scan, key, key_len, scan->keys ? '\n' : '\t');
        if (!scan->keys) print_field(scan, value, value_len, '\n');
    }
    if (status < 0) return failed(status);
    if (scan->count) printf("%" PRIu64 "\n", items);
    return EXIT_DONE;
}

/* How the iterator is to go, before it begins. */
static int32_t set_up(kv_iter *iter, const struct args *args, const struct scan *scan) {
    int32_t status = KV_OK;
    if (scan->keys || scan->count) status = kv_iter_keys_only(iter);
    if (status == KV_OK && has(args, "sorted")) status = kv_iter_sort(iter);
    if (status == KV_OK && has(args, "prefix")) {
        status = kv_iter_prefix(iter, scan->prefix.data, scan->prefix.len);
    }
    if (status == KV_OK && (has(args, "start") || has(args, "end"))) {
        status = kv_iter_range(iter, scan->start.data, scan->start.len, scan->end.data, scan->end.len);
    }
    return status;
}

static int scan_store(kv_store *store, const struct args *args, const struct scan *scan) {
    kv_iter *iter;
    int32_t status = kv_iter_new(store, &iter);
    if (status != KV_OK) return failed(status);
    status = set_up(iter, args, scan);
    int code = status == KV_OK ? print_items(iter, scan) : failed(status);
    kv_iter_free(iter);
    return code;
}

/* An option that is a key, or the beginning of one. */
static int key_of(const struct args *args, const char *option, enum form form, struct bytes *key) {
    const char *text = value_of(args, option);
    return text ? decode(text, form, key) : EXIT_DONE;
}

static int run_scan(const struct args *args) {
    struct scan scan = {.keys = has(args, "keys"), .null = has(args, "null"), .count = has(args, "count")};
    enum form given;
    kv_store *store;
    int code = form_of(args, RAW, &given);
    /* What is printed has to stay one line an item; what is given is taken as it is, as by the other commands. */
    scan.form = given != RAW ? given : scan.null ? RAW : ESCAPED;
    if (code == EXIT_DONE) code = number_of(args, "limit", UINT64_MAX, &scan.limit);
    if (code == EXIT_DONE) code = key_of(args, "prefix", given, &scan.prefix);
    if (code == EXIT_DONE) code = key_of(args, "start", given, &scan.start);
    if (code == EXIT_DONE) code = key_of(args, "end", given, &scan.end);
    if (code == EXIT_DONE) code = open_store(args->operands[0], READING, &store);
    if (code == EXIT_DONE) code = close_store(store, scan_store(store, args, &scan));
    free_bytes(&scan.prefix);
    free_bytes(&scan.start);
    free_bytes(&scan.end);
    return code;
}

const struct command scan_command = {
    .name = "scan",
    .operands = "DB",
    .summary = "print keys and values",
    .least = 1,
    .most = 1,
    .run = run_scan,
    .options = {FORM_OPTIONS,
                {0, "prefix", "TEXT", "only keys that begin with TEXT"},
                {0, "start", "KEY", "only keys from KEY on, in the order of bytes"},
                {0, "end", "KEY", "only keys before KEY"},
                {'s', "sorted", NULL, "in ascending order of keys; otherwise in no order"},
                {'k', "keys", NULL, "no values"},
                {'n', "limit", "N", "at most N of them"},
                {'c', "count", NULL, "print only how many there are"},
                {'0', "null", NULL, "a NUL byte after each key and each value, and nothing escaped"}},
    .text = "A line is a key, a tab and a value, both with \\xx for each byte that is not printable\n"
            "ASCII and for backslashes: what --escape accepts. The keys are not kept in order, so\n"
            "--prefix, --start and --end look at all of them.\n"
            "\n"
            "Examples:\n"
            "  kv scan people.db --sorted --limit 10\n"
            "  kv scan people.db --keys --prefix user:\n"
            "  kv scan people.db --start 2024-01 --end 2024-02 --sorted\n"
            "  kv scan people.db --count\n"
            "  kv scan people.db --keys --null | xargs -0 -n 1 echo\n"};
