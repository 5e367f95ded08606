/* get, set, del. */
#include "kv.h"

#include <string.h>
#include <unistd.h>

/* --- get ---------------------------------------------------------------------------------- */

static void print_value(enum form form, const uint8_t *value, size_t len) {
    print_bytes(stdout, form, value, len);
    /* Into a file go the bytes of the value and nothing else; for people a line has an end. */
    if (form != RAW || isatty(STDOUT_FILENO)) putchar('\n');
}

static int get_from(kv_store *store, const struct args *args, enum form form, const struct bytes *key) {
    kv_snapshot *snapshot;
    const uint8_t *value;
    size_t len;
    if (has(args, "quiet")) {
        int32_t found = kv_exists(store, key->data, key->len);
        return found == KV_NOT_FOUND ? EXIT_NO : found == KV_OK ? EXIT_DONE : failed(found);
    }
    /* A snapshot shows the value where it lies: it may be as large as memory. */
    int32_t status = kv_snapshot_new(store, &snapshot);
    if (status != KV_OK) return failed(status);
    status = kv_snapshot_get(snapshot, key->data, key->len, &value, &len);
    if (status == KV_OK) print_value(form, value, len);
    kv_snapshot_free(snapshot);
    return status == KV_OK ? EXIT_DONE : failed(status);
}

static int run_get(const struct args *args) {
    kv_store *store;
    struct bytes key;
    enum form form;
    int code = form_of(args, RAW, &form);
    if (code == EXIT_DONE) code = decode(args->operands[1], form, &key);
    if (code != EXIT_DONE) return code;
    code = open_store(args->operands[0], READING, &store);
    if (code == EXIT_DONE) code = close_store(store, get_from(store, args, form, &key));
    free_bytes(&key);
    return code;
}

const struct command get_command = {
    .name = "get",
    .operands = "DB KEY",
    .summary = "print the value of a key",
    .least = 2,
    .most = 2,
    .run = run_get,
    .options = {FORM_OPTIONS, {'q', "quiet", NULL, "print nothing: the exit code says whether the key is there"}},
    .text = "The value is printed as it is, byte by byte; on a terminal a newline follows.\n"
            "Exit code 1 if there is no such key.\n"
            "\n"
            "Examples:\n"
            "  kv get people.db alice\n"
            "  kv get photos.db cat.jpg > cat.jpg\n"
            "  kv get --hex counters.db 0000002a\n"
            "  kv get --quiet people.db bob || echo \"no bob\"\n"};

/* --- set ---------------------------------------------------------------------------------- */

static int read_value(enum form form, struct bytes *value) {
    char chunk[65536];
    size_t len;
    bool fits = true;
    *value = (struct bytes){NULL, 0, 0};
    while (fits && (len = fread(chunk, 1, sizeof chunk, stdin)) > 0) {
        fits = value->len + len <= KV_MAX_VALUE_LEN && append(value, chunk, len);
    }
    if (ferror(stdin)) return complain(EXIT_ERROR, "standard input cannot be read");
    if (!fits) return complain(EXIT_ERROR, "the value is too large");
    if (form == RAW) return EXIT_DONE;
    /* Text ends with a newline that nobody means. */
    if (value->len && value->data[value->len - 1] == '\n') value->len--;
    struct bytes text = *value;
    *value = (struct bytes){NULL, 0, 0};
    int code = EXIT_DONE;
    if (!append_byte(&text, '\0')) code = complain(EXIT_ERROR, "out of memory");
    if (code == EXIT_DONE && strlen((const char *)text.data) + 1 < text.len) {
        code = complain(EXIT_USAGE, "the value on standard input is no text");
    }
    if (code == EXIT_DONE) code = decode((const char *)text.data, form, value);
    free_bytes(&text);
    return code;
}

static int store_value(kv_store *store, const struct bytes *key, const struct bytes *value, bool absent,
                       const struct bytes *expected) {
    int32_t status;
    if (absent) {
        status = kv_set_if_absent(store, key->data, key->len, value->data, value->len);
    } else if (expected) {
        status = kv_replace_if(store, key->data, key->len, expected->data, expected->len, value->data, value->len);
    } else {
        status = kv_set(store, key->data, key->len, value->data, value->len);
    }
    if (status == KV_CONFLICT) {
        return complain(EXIT_NO, absent ? "the key is there already" : "the key does not have that value");
    }
    return status == KV_OK ? EXIT_DONE : failed(status);
}

static int set_decoded(const struct args *args, const struct bytes *key, const struct bytes *value,
                       const struct bytes *expected) {
    kv_store *store;
    int code = open_store(args->operands[0], has(args, "if-value") ? WRITING : CREATING, &store);
    if (code != EXIT_DONE) return code;
    return close_store(store, store_value(store, key, value, has(args, "if-absent"), expected));
}

static int run_set(const struct args *args) {
    struct bytes key = {NULL, 0, 0}, value = {NULL, 0, 0}, expected = {NULL, 0, 0};
    const char *old = value_of(args, "if-value");
    const char *text = args->count > 2 ? args->operands[2] : "-";
    bool piped = text[0] == '-' && !text[1];
    enum form form;
    int code = form_of(args, RAW, &form);
    if (old && has(args, "if-absent")) code = complain(EXIT_USAGE, "--if-absent and --if-value exclude each other");
    if (code == EXIT_DONE) code = decode(args->operands[1], form, &key);
    if (code == EXIT_DONE && old) code = decode(old, form, &expected);
    if (code == EXIT_DONE) code = piped ? read_value(form, &value) : decode(text, form, &value);
    if (code == EXIT_DONE) code = set_decoded(args, &key, &value, old ? &expected : NULL);
    free_bytes(&key);
    free_bytes(&value);
    free_bytes(&expected);
    return code;
}

const struct command set_command = {
    .name = "set",
    .operands = "DB KEY [VALUE]",
    .summary = "store a value under a key",
    .least = 2,
    .most = 3,
    .run = run_set,
    .options = {FORM_OPTIONS,
                {0, "if-absent", NULL, "only if the key is not there; otherwise exit code 1"},
                {0, "if-value", "OLD", "only if the key is there with the value OLD; otherwise exit code 1"}},
    .text = "The database is created if there is none. Without VALUE, or if it is -, the value is\n"
            "all of standard input. Exit code 0 means that the value is on the disk.\n"
            "\n"
            "Examples:\n"
            "  kv set people.db alice 'alice@example.org'\n"
            "  kv set photos.db cat.jpg < cat.jpg\n"
            "  kv set --if-absent jobs.db 42 \"taken by $$\" && work-on 42\n"
            "  kv set --escape tags.db 'a\\00b' ''\n"};

/* --- del ---------------------------------------------------------------------------------- */

static int del_one(kv_store *store, const char *text, enum form form) {
    struct bytes key;
    int code = decode(text, form, &key);
    if (code != EXIT_DONE) return code;
    int32_t status = kv_del(store, key.data, key.len);
    free_bytes(&key);
    return status == KV_OK ? EXIT_DONE : status == KV_NOT_FOUND ? EXIT_NO : failed(status);
}

static int run_del(const struct args *args) {
    kv_store *store;
    enum form form;
    int code = form_of(args, RAW, &form);
    if (code == EXIT_DONE) code = open_store(args->operands[0], WRITING, &store);
    if (code != EXIT_DONE) return code;
    for (int i = 1; i < args->count && code <= EXIT_NO; i++) {
        int one = del_one(store, args->operands[i], form);
        if (one == EXIT_NO) complain(EXIT_NO, "%s: key not found", args->operands[i]);
        if (one != EXIT_DONE) code = one;
    }
    return close_store(store, code);
}

const struct command del_command = {
    .name = "del",
    .operands = "DB KEY...",
    .summary = "delete keys",
    .least = 2,
    .most = -1,
    .run = run_del,
    .options = {FORM_OPTIONS},
    .text = "Exit code 1 if one of the keys was not there; the others are deleted all the same.\n"
            "\n"
            "Examples:\n"
            "  kv del people.db alice bob\n"
            "  kv del people.db -- --odd-key\n"
            "  kv scan --keys --null --prefix tmp: people.db | xargs -0 kv del people.db --\n"};
