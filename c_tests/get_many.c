/*
 * Reading many keys at once.
 */
#include "check.h"

enum { MOST = 3000 };
static char names[MOST][32];
static const uint8_t *keys[MOST], *values[MOST];
static size_t key_lens[MOST], value_lens[MOST];

static void finds_what_single_gets_find(kv_store *store) {
    uint64_t state = 9;
    for (size_t count = 0; count < (quick() ? 200 : MOST); count = count * 3 / 2 + 1) {
        uint8_t *buf = NULL;
        for (size_t n = 0; n < count; n++) {
            key_lens[n] = numbered_key(next_random(&state) % 4000, names[n]);
            keys[n] = bytes(names[n]);
        }
        OK(kv_get_many(store, count, keys, key_lens, values, value_lens, &buf));
        CHECK(buf != NULL);
        for (size_t n = 0; n < count; n++) HAS_BYTES(store, keys[n], key_lens[n], values[n], value_lens[n]);
        kv_free_buf(buf);
    }
}

static void arguments(kv_store *store) {
    static uint8_t long_key[KV_MAX_KEY_LEN + 1];
    uint8_t *buf = (uint8_t *)&buf;
    OK(kv_get_many(store, 0, NULL, NULL, NULL, NULL, &buf));
    kv_free_buf(buf);
    OK(set_text(store, "empty", ""));
    keys[0] = bytes("empty"), key_lens[0] = 5;
    keys[1] = NULL, key_lens[1] = 0;
    OK(kv_get_many(store, 2, keys, key_lens, values, value_lens, &buf));
    CHECK(values[0] != NULL && value_lens[0] == 0 && values[1] == NULL && value_lens[1] == 0);
    kv_free_buf(buf);
    key_lens[1] = 1;
    values[0] = bytes("garbage");
    STATUS(kv_get_many(store, 2, keys, key_lens, values, value_lens, &buf), KV_ERR_INVALID);
    CHECK(buf == NULL && values[0] == NULL && value_lens[0] == 0);
    keys[1] = long_key, key_lens[1] = sizeof long_key;
    STATUS(kv_get_many(store, 2, keys, key_lens, values, value_lens, &buf), KV_ERR_TOO_LARGE);
    STATUS(kv_get_many(store, SIZE_MAX / 4, keys, key_lens, values, value_lens, &buf), KV_ERR_INVALID);
    STATUS(kv_get_many(store, 1, NULL, key_lens, values, value_lens, &buf), KV_ERR_INVALID);
    STATUS(kv_get_many(store, 1, keys, NULL, values, value_lens, &buf), KV_ERR_INVALID);
    STATUS(kv_get_many(store, 1, keys, key_lens, NULL, value_lens, &buf), KV_ERR_INVALID);
    STATUS(kv_get_many(store, 1, keys, key_lens, values, NULL, &buf), KV_ERR_INVALID);
    STATUS(kv_get_many(store, 1, keys, key_lens, values, value_lens, NULL), KV_ERR_INVALID);
    STATUS(kv_get_many(NULL, 1, keys, key_lens, values, value_lens, &buf), KV_ERR_INVALID);
}

int main(int argc, char **argv) {
    kv_store *store = open_store(path_in(data_dir(argc, argv), "db"));
    for (uint64_t n = 0; n < 3000; n++) OK(set_numbered(store, n, 1, n % 50 == 0 ? 20000 : n % 200));
    for (uint64_t n = 0; n < 3000; n += 7) OK(del_numbered(store, n));
    finds_what_single_gets_find(store);
    arguments(store);
    OK(kv_close(store));
    return 0;
}
