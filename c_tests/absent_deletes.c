/*
 * Deleting what is not there writes nothing.
 */
#include "files.h"

static uint64_t bytes_on_disk(const char *path) {
    return size_of_files(path, ".log", false);
}

int main(int argc, char **argv) {
    const char *path = path_in(data_dir(argc, argv), "db");
    kv_store *store = open_with(path, WITH({KV_OPT_BACKGROUND, 0}));
    struct kv_stats before, after;
    uint64_t files_before;
    for (int i = 0; i < 100; i++) OK(set_numbered(store, i, 1, 50));
    for (int i = 0; i < 50; i++) OK(del_numbered(store, i));
    before = stats_of(store);
    files_before = bytes_on_disk(path);
    for (int i = 0; i < (quick() ? 2000 : 100000); i++) {
        uint64_t number = i % 2 ? i % 50 : 1000 + i;
        STATUS(del_numbered(store, number), KV_NOT_FOUND);
    }
    after = stats_of(store);
    COMPARE(after.log_bytes, ==, before.log_bytes);
    COMPARE(after.dead_bytes, ==, before.dead_bytes);
    COMPARE(after.tombstone_bytes, ==, before.tombstone_bytes);
    COMPARE(after.keys, ==, 50);
    COMPARE(bytes_on_disk(path), ==, files_before);
    OK(kv_close(store));
    store = open_store(path);
    for (int i = 0; i < 100; i++) {
        if (i < 50) {
            HAS_NOT_NUMBERED(store, i);
        } else {
            HAS_NUMBERED(store, i, 1, 50);
        }
    }
    OK(kv_close(store));
    return 0;
}
