/*
 * Somebody truncates the log under an open store that reads by system calls: codes, never a signal, and what is left can
 * be read. (In a mapped segment that is SIGBUS, and the header says so.)
 */
#include "check.h"
#include "files.h"

enum { KEYS = 200, LEN = 300 };

int main(int argc, char **argv) {
    const char *path = path_in(data_dir(argc, argv), "db");
    kv_store *store = open_with(path, WITH({KV_OPT_IO, KV_IO_SYSCALL}, {KV_OPT_BACKGROUND, 0}));
    kv_snapshot *snapshot;
    kv_iter *iter;
    const uint8_t *key, *data;
    size_t key_len, len;
    int32_t status;
    int readable = 0, damaged = 0, shown = 0;
    for (uint64_t n = 0; n < KEYS; n++) OK(set_numbered(store, n, 1, LEN));
    OK(kv_snapshot_new(store, &snapshot));
    OK(kv_iter_new(store, &iter));
    CHECK(truncate(path_in(path, "0000000001.log"), KEYS * LEN / 2) == 0);
    for (uint64_t n = 0; n < KEYS; n++) {
        char name[32];
        uint8_t *value;
        size_t name_len = numbered_key(n, name);
        status = kv_get(store, bytes(name), name_len, &value, &len);
        STATUS(kv_snapshot_get(snapshot, bytes(name), name_len, &data, &len), status);
        if (status == KV_OK) {
            HAS_NUMBERED(store, n, 1, LEN);
            kv_free_buf(value);
            readable++;
        } else {
            STATUS(status, KV_ERR_CORRUPT);
            damaged++;
        }
    }
    COMPARE(readable, >, KEYS / 4);
    COMPARE(damaged, >, KEYS / 4);
    while ((status = kv_iter_next(iter, &key, &key_len, &data, &len)) == KV_OK) shown++;
    STATUS(status, KV_ERR_CORRUPT);
    COMPARE(shown, ==, readable);
    kv_iter_free(iter);
    kv_snapshot_free(snapshot);
    (void)kv_close(store);
    return 0;
}
