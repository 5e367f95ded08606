/* A program of somebody who has the library installed: stores a value and reads it back. */
#include <kvstore.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    kv_store *store;
    uint8_t *value;
    size_t len;
    int same;
    if (argc != 2 || kv_open(argv[1], NULL, &store) != KV_OK) return 1;
    if (kv_set(store, (const uint8_t *)"k", 1, (const uint8_t *)"value", 5) != KV_OK) return 2;
    if (kv_get(store, (const uint8_t *)"k", 1, &value, &len) != KV_OK) return 3;
    same = len == 5 && memcmp(value, "value", 5) == 0;
    kv_free_buf(value);
    if (kv_close(store) != KV_OK || strcmp(kv_version(), KVSTORE_VERSION) != 0) return 4;
    return same ? 0 : 5;
}
