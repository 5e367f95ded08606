/*
 * Any byte string is a key and any byte string is a value: the empty ones, those with NUL bytes, the longest ones,
 * and those that look like something of the store's own.
 */
#include "check.h"

/* Byte strings that an implementation might be tempted to treat specially. */
static const struct {
    const char *data;
    size_t len;
} SPECIAL[] = {
    {"", 0},
    {"\0", 1},
    {"\0\0\0\0\0\0\0\0", 8},
    {"\xff\xff\xff\xff\xff\xff\xff\xff", 8},
    {"kvstore\n", 8},
    {"kvstore\n\1\0\0\0", 12},
    {"KVS1", 4},
    {"bitcask_tombstone", 17},
    {"\x25\0\0\0\0\0\0\0", 8},
    {"\x08\0\0\0\0\0\0\x40", 8},
    {"\x40\0\0\0\0\0\0\x80", 8},
    {"LOCK", 4},
    {"MANIFEST", 8},
    {"0000000001.log", 14},
    {"a\0b", 3},
    {"a\0c", 3},
    {"a", 1},
    {"\xc3\x28 not utf-8", 12},
};
enum { SPECIAL_COUNT = sizeof SPECIAL / sizeof *SPECIAL };

/* Every special string is a key, whose value is the special string `shift` further on. */
static void set_special(kv_store *store, size_t shift) {
    for (size_t i = 0; i < SPECIAL_COUNT; i++) {
        size_t j = (i + shift) % SPECIAL_COUNT;
        OK(kv_set(store, bytes(SPECIAL[i].data), SPECIAL[i].len, bytes(SPECIAL[j].data), SPECIAL[j].len));
    }
}

static void check_special(kv_store *store, size_t shift) {
    for (size_t i = 0; i < SPECIAL_COUNT; i++) {
        size_t j = (i + shift) % SPECIAL_COUNT;
        HAS_BYTES(store, bytes(SPECIAL[i].data), SPECIAL[i].len, bytes(SPECIAL[j].data), SPECIAL[j].len);
    }
    COMPARE(stats_of(store).keys, ==, SPECIAL_COUNT);
}

static void special_strings(const char *path) {
    kv_store *store;
    for (size_t shift = 0; shift < SPECIAL_COUNT; shift += 3) {
        store = open_store(path);
        set_special(store, shift);
        check_special(store, shift);
        OK(kv_close(store));
        store = open_store(path);
        check_special(store, shift);
        OK(kv_compact(store));
        check_special(store, shift);
        OK(kv_close(store));
    }
    store = open_store(path);
    for (size_t i = 0; i < SPECIAL_COUNT; i++) {
        OK(kv_del(store, bytes(SPECIAL[i].data), SPECIAL[i].len));
        HAS_BYTES(store, bytes(SPECIAL[i].data), SPECIAL[i].len, NULL, 0);
    }
    COMPARE(stats_of(store).keys, ==, 0);
    OK(kv_close(store));
}

static void null_is_empty(kv_store *store) {
    uint8_t *value = NULL, buffer[4];
    size_t len = 77;
    STATUS(kv_get(store, NULL, 0, &value, &len), KV_NOT_FOUND);
    OK(kv_set(store, NULL, 0, NULL, 0));
    OK(kv_exists(store, NULL, 0));
    len = 77;
    OK(kv_get(store, NULL, 0, &value, &len));
    CHECK(value != NULL);
    CHECK(len == 0);
    kv_free_buf(value);
    len = 77;
    OK(kv_get_into(store, NULL, 0, buffer, 4, &len));
    CHECK(len == 0);
    HAS(store, "", "");
    OK(kv_del(store, NULL, 0));
    STATUS(kv_exists(store, NULL, 0), KV_NOT_FOUND);
    STATUS(kv_set(store, NULL, 1, bytes("v"), 1), KV_ERR_INVALID);
    STATUS(kv_set(store, bytes("k"), 1, NULL, 1), KV_ERR_INVALID);
    HAS_NOT(store, "k");
}

static void every_byte(const char *path) {
    kv_store *store = open_store(path);
    uint8_t all[256];
    for (int i = 0; i < 256; i++) all[i] = (uint8_t)i;
    for (int i = 0; i < 256; i++) OK(kv_set(store, all + i, 1, all, (size_t)i));
    OK(kv_set(store, all, 256, all, 256));
    OK(kv_close(store));
    store = open_store(path);
    for (int i = 0; i < 256; i++) HAS_BYTES(store, all + i, 1, all, (size_t)i);
    HAS_BYTES(store, all, 256, all, 256);
    OK(kv_close(store));
}

static void the_longest_key(const char *path) {
    kv_store *store = open_store(path);
    uint8_t *key = malloc(KV_MAX_KEY_LEN + 1), *value = NULL;
    size_t len;
    CHECK(key != NULL);
    fill(key, KV_MAX_KEY_LEN + 1, 1);
    OK(kv_set(store, key, KV_MAX_KEY_LEN, bytes("longest"), 7));
    OK(kv_set(store, key, KV_MAX_KEY_LEN - 1, bytes("longest but one"), 15));
    STATUS(kv_set(store, key, KV_MAX_KEY_LEN + 1, bytes("x"), 1), KV_ERR_TOO_LARGE);
    STATUS(kv_set(store, key, SIZE_MAX, bytes("x"), 1), KV_ERR_TOO_LARGE);
    STATUS(kv_get(store, key, KV_MAX_KEY_LEN + 1, &value, &len), KV_ERR_TOO_LARGE);
    STATUS(kv_exists(store, key, KV_MAX_KEY_LEN + 1), KV_ERR_TOO_LARGE);
    STATUS(kv_del(store, key, KV_MAX_KEY_LEN + 1), KV_ERR_TOO_LARGE);
    OK(kv_close(store));
    store = open_store(path);
    HAS_BYTES(store, key, KV_MAX_KEY_LEN, bytes("longest"), 7);
    HAS_BYTES(store, key, KV_MAX_KEY_LEN - 1, bytes("longest but one"), 15);
    OK(kv_del(store, key, KV_MAX_KEY_LEN));
    OK(kv_compact(store));
    HAS_BYTES(store, key, KV_MAX_KEY_LEN, NULL, 0);
    HAS_BYTES(store, key, KV_MAX_KEY_LEN - 1, bytes("longest but one"), 15);
    OK(kv_close(store));
    free(key);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    kv_store *store = open_store(path_in(dir, "null"));
    null_is_empty(store);
    OK(kv_close(store));
    special_strings(path_in(dir, "special"));
    every_byte(path_in(dir, "bytes"));
    the_longest_key(path_in(dir, "long"));
    return 0;
}
