/*
 * Values around every size at which something changes: pages, buffers, limits of libraries, segments.
 * KV_BIG=1 adds one of 2 GiB, which takes as much memory and disk.
 */
#include "check.h"

static uint8_t *pattern;

/* Values are prefixes of one pattern, shifted by the version so that versions differ. */
static void set_large(kv_store *store, const char *key, size_t len, size_t version) {
    OK(kv_set(store, bytes(key), strlen(key), pattern + version, len));
}

static void check_large(kv_store *store, const char *key, size_t len, size_t version) {
    HAS_BYTES(store, bytes(key), strlen(key), pattern + version, len);
}

static void around_boundaries(const char *path) {
    static const size_t EDGES[] = {4096, 8192, 65536, 131072, 1 << 20, 4 << 20};
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 1 << 20}));
    char key[64];
    for (int round = 0; round < 2; round++) {
        for (size_t edge = 0; edge < sizeof EDGES / sizeof *EDGES; edge++) {
            /* The lengths at which the value, or the record around it, ends at the edge. */
            for (size_t below = 0; below <= 90; below += below == 1 ? 23 : 1) {
                size_t len = EDGES[edge] + 1 - below;
                if (EDGES[edge] > 100000 && below > 1 && below < 90) continue;
                snprintf(key, sizeof key, "edge-%zu", len);
                if (round == 0) {
                    set_large(store, key, len, below);
                } else {
                    check_large(store, key, len, below);
                }
            }
        }
        OK(kv_close(store));
        store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 1 << 20}));
    }
    OK(kv_close(store));
}

static void large(const char *path, size_t len) {
    kv_store *store = open_store(path);
    uint8_t *buffer = malloc(len);
    size_t found = 0;
    CHECK(buffer != NULL);
    set_large(store, "before", 100, 1);
    set_large(store, "large", len, 2);
    set_large(store, "after", 100, 3);
    check_large(store, "large", len, 2);
    STATUS(kv_get_into(store, bytes("large"), 5, buffer, len - 1, &found), KV_ERR_BUFFER_TOO_SMALL);
    CHECK(found == len);
    OK(kv_get_into(store, bytes("large"), 5, buffer, len, &found));
    CHECK(found == len && memcmp(buffer, pattern + 2, len) == 0);
    OK(kv_close(store));

    store = open_store(path);
    check_large(store, "large", len, 2);
    set_large(store, "large", len, 4);
    OK(kv_compact(store));
    check_large(store, "large", len, 4);
    COMPARE(stats_of(store).log_bytes, <, len + (len >> 3) + 65536);
    set_large(store, "large", 10, 5);
    OK(kv_compact(store));
    COMPARE(stats_of(store).log_bytes, <, 65536);
    OK(kv_close(store));

    store = open_store(path);
    check_large(store, "before", 100, 1);
    check_large(store, "large", 10, 5);
    check_large(store, "after", 100, 3);
    OK(kv_close(store));
    free(buffer);
}

/* A length over the limit is refused before a byte of the value is read. */
static void too_large(const char *path) {
    kv_store *store = open_store(path);
#if SIZE_MAX > UINT32_MAX
    STATUS(kv_set(store, bytes("k"), 1, bytes("v"), (size_t)KV_MAX_VALUE_LEN + 1), KV_ERR_TOO_LARGE);
#endif
    STATUS(kv_set(store, bytes("k"), 1, bytes("v"), SIZE_MAX), KV_ERR_TOO_LARGE);
    STATUS(kv_set(store, bytes("k"), 1, bytes("v"), SIZE_MAX / 2 + 1), KV_ERR_TOO_LARGE);
    HAS_NOT(store, "k");
    OK(kv_close(store));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    bool big = getenv("KV_BIG") != NULL;
    size_t largest = big ? (size_t)2 << 30 : (size_t)64 << 20;
    if (quick()) largest = 5 << 20;
    pattern = malloc(largest + 100);
    CHECK(pattern != NULL);
    fill(pattern, largest + 100, 7);
    too_large(path_in(dir, "too-large"));
    around_boundaries(path_in(dir, "boundaries"));
    large(path_in(dir, "5M"), 5 << 20);
    if (largest >= 64 << 20) large(path_in(dir, "64M"), 64 << 20);
    if (big) large(path_in(dir, "2G"), (size_t)2 << 30);
    free(pattern);
    return 0;
}
