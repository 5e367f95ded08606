/*
 * Setting, getting and deleting, against a model that cannot be wrong.
 */
#include "check.h"

static void one_key(kv_store *store) {
    HAS_NOT(store, "k");
    STATUS(del_text(store, "k"), KV_NOT_FOUND);
    OK(set_text(store, "k", "one"));
    HAS(store, "k", "one");
    OK(set_text(store, "k", "two, which is longer"));
    HAS(store, "k", "two, which is longer");
    OK(set_text(store, "k", "3"));
    HAS(store, "k", "3");
    OK(set_text(store, "k", "3"));
    HAS(store, "k", "3");
    OK(del_text(store, "k"));
    HAS_NOT(store, "k");
    STATUS(del_text(store, "k"), KV_NOT_FOUND);
    OK(set_text(store, "k", "back"));
    HAS(store, "k", "back");
}

/* A value that was handed out is the caller's: later writes, compaction and closing leave it alone. */
static void a_value_is_a_copy(const char *path) {
    kv_store *store = open_store(path);
    uint8_t *value;
    size_t len;
    OK(set_text(store, "k", "first"));
    OK(kv_get(store, bytes("k"), 1, &value, &len));
    OK(set_text(store, "k", "other"));
    OK(kv_compact(store));
    OK(del_text(store, "k"));
    OK(kv_close(store));
    CHECK(len == 5 && memcmp(value, "first", 5) == 0);
    memset(value, 'x', len);
    kv_free_buf(value);
    kv_free_buf(NULL);
}

/* Nothing that was passed in is kept or changed. */
static void arguments_stay_the_callers(kv_store *store) {
    char key[] = "argument", value[] = "of the caller";
    OK(kv_set(store, bytes(key), 8, bytes(value), 13));
    CHECK(strcmp(key, "argument") == 0 && strcmp(value, "of the caller") == 0);
    memset(key, 'x', 8);
    memset(value, 'x', 13);
    HAS(store, "argument", "of the caller");
}

static void into_a_buffer(kv_store *store) {
    uint8_t buffer[16];
    size_t len = 77;
    OK(set_text(store, "ten", "0123456789"));
    for (size_t cap = 0; cap <= 14; cap++) {
        memset(buffer, '#', sizeof buffer);
        len = 77;
        STATUS(kv_get_into(store, bytes("ten"), 3, buffer, cap, &len), cap < 10 ? KV_ERR_BUFFER_TOO_SMALL : KV_OK);
        CHECK(len == 10);
        CHECK(memcmp(buffer, cap < 10 ? "##########" : "0123456789", 10) == 0);
        CHECK(memcmp(buffer + 10, "######", 6) == 0);
    }
    STATUS(kv_get_into(store, bytes("ten"), 3, NULL, 0, &len), KV_ERR_BUFFER_TOO_SMALL);
    CHECK(len == 10);
    len = 77;
    STATUS(kv_get_into(store, bytes("none"), 4, buffer, 16, &len), KV_NOT_FOUND);
    CHECK(len == 0);
    STATUS(kv_get_into(store, bytes("ten"), 3, NULL, 1, &len), KV_ERR_INVALID);
    STATUS(kv_get_into(store, bytes("ten"), 3, buffer, 16, NULL), KV_ERR_INVALID);
    OK(set_text(store, "empty", ""));
    len = 77;
    OK(kv_get_into(store, bytes("empty"), 5, NULL, 0, &len));
    CHECK(len == 0);
}

static void a_buffer_must_not_overlap_the_key(kv_store *store) {
    uint8_t memory[64] = "ten";
    size_t len = 77;
    STATUS(kv_get_into(store, memory, 3, memory, 64, &len), KV_ERR_INVALID);
    STATUS(kv_get_into(store, memory, 3, memory + 2, 62, &len), KV_ERR_INVALID);
    CHECK(len == 0);
    OK(kv_get_into(store, memory, 3, memory + 3, 61, &len));
    CHECK(len == 10);
}

/* Keys that are each other's beginnings, or differ in a bit, are different keys. */
static void similar_keys(kv_store *store) {
    char key[200];
    memset(key, 'a', sizeof key);
    for (size_t len = 1; len <= sizeof key; len++) OK(kv_set(store, bytes(key), len, bytes(key), len - 1));
    for (size_t len = 1; len <= sizeof key; len++) HAS_BYTES(store, bytes(key), len, bytes(key), len - 1);
    for (int bit = 0; bit < 8; bit++) {
        key[100] = (char)('a' ^ (1 << bit));
        HAS_BYTES(store, bytes(key), sizeof key, NULL, 0);
        OK(kv_set(store, bytes(key), sizeof key, bytes("x"), 1));
    }
    key[100] = 'a';
    HAS_BYTES(store, bytes(key), sizeof key, bytes(key), sizeof key - 1);
}

enum { KEYS = 2000 };

/* Random operations on numbered keys; `versions` is the model, 0 means absent. */
static void random_operations(const char *path) {
    static uint64_t versions[KEYS];
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 64 << 10}, {KV_OPT_COMPACT_THRESHOLD, 128 << 10}));
    uint64_t random = 88172645463325252u, present = 0;
    int steps = quick() ? 5000 : 60000;
    for (int step = 1; step <= steps; step++) {
        uint64_t key = next_random(&random) % KEYS, what = next_random(&random) % 100;
        if (what < 45) {
            OK(set_numbered(store, key, step, (size_t)(step * 7) % 300));
            present += versions[key] == 0;
            versions[key] = step;
        } else if (what < 65) {
            STATUS(del_numbered(store, key), versions[key] ? KV_OK : KV_NOT_FOUND);
            present -= versions[key] != 0;
            versions[key] = 0;
        } else if (versions[key]) {
            HAS_NUMBERED(store, key, versions[key], (size_t)(versions[key] * 7) % 300);
        } else {
            HAS_NOT_NUMBERED(store, key);
        }
        if (step % 10000 == 0) {
            OK(kv_close(store));
            store = open_store(path);
            COMPARE(stats_of(store).keys, ==, present);
        }
    }
    OK(kv_compact(store));
    for (uint64_t key = 0; key < KEYS; key++) {
        if (versions[key]) {
            HAS_NUMBERED(store, key, versions[key], (size_t)(versions[key] * 7) % 300);
        } else {
            HAS_NOT_NUMBERED(store, key);
        }
    }
    COMPARE(stats_of(store).keys, ==, present);
    OK(kv_close(store));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    kv_store *store = open_store(path_in(dir, "small"));
    one_key(store);
    arguments_stay_the_callers(store);
    into_a_buffer(store);
    a_buffer_must_not_overlap_the_key(store);
    similar_keys(store);
    OK(kv_close(store));
    a_value_is_a_copy(path_in(dir, "copy"));
    random_operations(path_in(dir, "random"));
    return 0;
}
