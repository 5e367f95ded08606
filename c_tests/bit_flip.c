/*
 * One bit of a cleanly closed database flips, anywhere: opening or reading says so or the answer is right. Never is it
 * wrong, and never is a key missing without a word.
 */
#include "files.h"

enum { KEYS = 8, DELETED = 3, LEN = 24 };

static void make(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_BACKGROUND, 0}));
    for (int i = 0; i < KEYS; i++) OK(set_numbered(store, i, i == 5 ? 9 : 1, LEN));
    OK(del_numbered(store, DELETED));
    OK(set_numbered(store, 5, 1, LEN));
    OK(kv_close(store));
}

/* The same, with a compacted segment and two others. */
static void make_segments(const char *path) {
    kv_store *store;
    make(path);
    store = open_with(path, WITH({KV_OPT_BACKGROUND, 0}));
    OK(kv_compact(store));
    OK(set_numbered(store, 0, 2, LEN));
    OK(set_numbered(store, 0, 1, LEN));
    OK(kv_close(store));
}

/* Reads all keys; returns how many reads said that something is wrong. */
static int right_or_an_error(kv_store *store) {
    int errors = 0;
    for (uint64_t i = 0; i < KEYS + 2; i++) {
        char key[32];
        uint8_t *value, expected[LEN];
        size_t len, key_len = numbered_key(i, key);
        int32_t status = kv_get(store, bytes(key), key_len, &value, &len), exists = kv_exists(store, bytes(key), key_len);
        bool present = i < KEYS && i != DELETED;
        fill(expected, LEN, i * 1000003 + 1);
        if (status == KV_OK) CHECK(present && len == LEN && memcmp(value, expected, LEN) == 0);
        if (status == KV_NOT_FOUND) CHECK(!present);
        if (exists == KV_OK) CHECK(present);
        if (exists == KV_NOT_FOUND) CHECK(!present);
        if (status < 0) {
            CHECK(value == NULL && len == 0);
            errors++;
        }
        kv_free_buf(value);
    }
    return errors;
}

/* Opens and reads. Returns the status of opening, or how many reads failed. */
static int32_t look(const char *path, uint64_t read_only) {
    kv_store *store;
    int32_t status = try_open(path, WITH({KV_OPT_READ_ONLY, read_only}, {KV_OPT_BACKGROUND, 0}), &store);
    if (status != KV_OK) {
        CHECK(store == NULL && status < 0);
        CHECK(kv_last_error(NULL, 0) > 0);
        return status;
    }
    status = right_or_an_error(store);
    CHECK(kv_close(store) <= 0);
    return status;
}

/* Opening for writing repairs, or tries to: afterwards it is no worse. */
static void look_and_repair(const char *path, const char *name, struct bytes original, size_t at) {
    struct bytes changed = {malloc(original.len), original.len};
    int32_t first;
    CHECK(changed.data != NULL);
    memcpy(changed.data, original.data, original.len);
    changed.data[at] ^= (uint8_t)(1 << at % 8);
    write_file(path_in(path, name), changed.data, changed.len);
    first = look(path, 0);
    CHECK(first >= 0 || look(path, 0) < 0);
    (void)look(path, 1);
    free(changed.data);
}

static void flip_every_byte(const char *path, const char *copy) {
    struct listing files = list_dir(path, "");
    size_t turn = 0, step = quick() ? 37 : 1;
    CHECK(look(path, 1) == 0);
    for (size_t i = 0; i < files.count; i++) {
        struct bytes original = read_file(path_in(path, files.names[i]));
        copy_database(path, copy);
        for (size_t at = turn % step; at < original.len; at += step) {
            int file = open(path_in(copy, files.names[i]), O_WRONLY);
            uint8_t flipped = original.data[at] ^ (uint8_t)(1 << at % 8);
            int32_t result;
            DOING("%s: %s: bit %zu of byte %zu", path, files.names[i], at % 8, at);
            CHECK(file >= 0);
            CHECK(pwrite(file, &flipped, 1, (off_t)at) == 1);
            result = look(copy, 1);
            /* A hint is a help and no more. */
            if (ends_with(files.names[i], ".hint")) COMPARE(result, ==, 0);
            CHECK(pwrite(file, &original.data[at], 1, (off_t)at) == 1);
            CHECK(close(file) == 0);
            if (turn++ % 13 == 0) {
                look_and_repair(copy, files.names[i], original, at);
                copy_database(path, copy);
            }
        }
        free(original.data);
    }
    free_listing(files);
}

static const uint8_t *find(struct bytes in, const uint8_t *what, size_t len) {
    for (size_t i = 0; i + len <= in.len; i++) {
        if (memcmp(in.data + i, what, len) == 0) return in.data + i;
    }
    return NULL;
}

/* A flip in a value costs that key and no other, and the key says so. */
static void only_that_key(const char *path, const char *copy) {
    struct listing logs = list_dir(path, ".log");
    int found = 0;
    for (uint64_t i = 0; i < KEYS; i++) {
        uint8_t expected[LEN];
        if (i == DELETED) continue;
        fill(expected, LEN, i * 1000003 + 1);
        for (size_t log = 0; log < logs.count; log++) {
            struct bytes content = read_file(path_in(path, logs.names[log]));
            const uint8_t *at = find(content, expected, LEN);
            if (at) {
                char key[32];
                uint8_t *value;
                size_t len;
                kv_store *store;
                content.data[at - content.data + (ptrdiff_t)(i * 3)] ^= 0x10;
                copy_database(path, copy);
                write_file(path_in(copy, logs.names[log]), content.data, content.len);
                store = open_store(copy);
                COMPARE(right_or_an_error(store), ==, 1);
                STATUS(kv_get(store, bytes(key), numbered_key(i, key), &value, &len), KV_ERR_CORRUPT);
                /* Writing it anew heals it. */
                OK(set_numbered(store, i, 1, LEN));
                COMPARE(right_or_an_error(store), ==, 0);
                OK(kv_close(store));
                COMPARE(look(copy, 1), ==, 0);
                found++;
            }
            free(content.data);
        }
    }
    COMPARE(found, >=, KEYS - 1);
    free_listing(logs);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv), *one = path_in(dir, "one"), *more = path_in(dir, "more");
    make(one);
    make_segments(more);
    flip_every_byte(one, path_in(dir, "copy"));
    flip_every_byte(more, path_in(dir, "copy"));
    only_that_key(one, path_in(dir, "copy"));
    return 0;
}
