/*
 * Opened read-only, a database is read by many at once, and not a byte of its directory changes, crashed or not.
 */
#include "files.h"

enum { KEYS = 200 };

static void has_all(kv_store *store) {
    for (int i = 0; i < KEYS; i++) {
        if (i % 10 == 3) {
            HAS_NOT_NUMBERED(store, i);
        } else {
            HAS_NUMBERED(store, i, 2, 150);
        }
    }
    COMPARE(stats_of(store).keys, ==, KEYS - KEYS / 10);
}

static void set_all(kv_store *store) {
    for (int version = 1; version <= 2; version++) {
        for (int i = 0; i < KEYS; i++) OK(set_numbered(store, i, version, 150));
    }
    for (int i = 3; i < KEYS; i += 10) OK(del_numbered(store, i));
}

static void nothing_can_be_written(kv_store *store) {
    STATUS(set_text(store, "k", "v"), KV_ERR_READ_ONLY);
    STATUS(set_numbered(store, 1, 3, 10), KV_ERR_READ_ONLY);
    STATUS(del_numbered(store, 1), KV_ERR_READ_ONLY);
    STATUS(del_text(store, "absent"), KV_ERR_READ_ONLY);
    STATUS(kv_compact(store), KV_ERR_READ_ONLY);
    STATUS(kv_maintain(store, 1000), KV_ERR_READ_ONLY);
}

/* Two readers here and one in another process, each doing all that a reader can. */
static void readers_change_nothing(const char *path) {
    uint64_t before = fingerprint(path);
    kv_store *one = open_with(path, WITH({KV_OPT_READ_ONLY, 1})), *two = open_with(path, WITH({KV_OPT_READ_ONLY, 1}));
    pid_t child;
    has_all(one);
    has_all(two);
    nothing_can_be_written(one);
    child = fork();
    if (child == 0) {
        kv_store *other = open_with(path, WITH({KV_OPT_READ_ONLY, 1}));
        has_all(other);
        OK(kv_close(other));
        end_child();
    }
    check_child(child);
    OK(kv_close(one));
    has_all(two);
    OK(kv_close(two));
    COMPARE(fingerprint(path), ==, before);
}

static void closed_properly(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 8192}));
    set_all(store);
    OK(kv_close(store));
    readers_change_nothing(path);
    store = open_with(path, WITH({KV_OPT_READ_ONLY, 1}));
    COMPARE(recovery_of(store).clean, ==, 1);
    OK(kv_close(store));
}

static void crash_in_one_segment(const char *path) {
    set_all(open_store(path));
}

static void crash_in_many_segments(const char *path) {
    set_all(open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 8192})));
}

/* Readers see what recovery would restore, and leave the recovering to the next writer. */
static void crashed(const char *path, void (*crash)(const char *path)) {
    kv_store *store;
    in_a_killed_child(crash, path);
    readers_change_nothing(path);
    store = open_with(path, WITH({KV_OPT_READ_ONLY, 1}));
    COMPARE(recovery_of(store).clean, ==, 0);
    OK(kv_close(store));
    store = open_store(path);
    has_all(store);
    OK(kv_close(store));
}

/* A directory that this process must not write to. */
static void no_permission(const char *path) {
    struct listing files;
    kv_store *store = open_store(path);
    set_all(store);
    OK(kv_close(store));
    files = list_dir(path, "");
    for (size_t i = 0; i < files.count; i++) CHECK(chmod(path_in(path, files.names[i]), 0444) == 0);
    CHECK(chmod(path, 0555) == 0);
    readers_change_nothing(path);
    CHECK(chmod(path, 0755) == 0);
    for (size_t i = 0; i < files.count; i++) CHECK(chmod(path_in(path, files.names[i]), 0644) == 0);
    free_listing(files);
}

/* Shipped without its lock file and its hints, a database can still be read, and gets no new files. */
static void without_what_can_be_done_without(const char *path) {
    struct listing hints;
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 8192}));
    set_all(store);
    OK(kv_close(store));
    hints = list_dir(path, ".hint");
    for (size_t i = 0; i < hints.count; i++) CHECK(unlink(path_in(path, hints.names[i])) == 0);
    free_listing(hints);
    CHECK(unlink(path_in(path, "LOCK")) == 0);
    readers_change_nothing(path);
}

static void creates_nothing(const char *dir) {
    uint64_t before = fingerprint(dir);
    kv_store *store = (kv_store *)&store;
    STATUS(try_open(path_in(dir, "none"), WITH({KV_OPT_READ_ONLY, 1}), &store), KV_ERR_NOT_A_DATABASE);
    CHECK(store == NULL);
    COMPARE(fingerprint(dir), ==, before);
    CHECK(mkdir(path_in(dir, "empty"), 0777) == 0);
    before = fingerprint(path_in(dir, "empty"));
    STATUS(try_open(path_in(dir, "empty"), WITH({KV_OPT_READ_ONLY, 1}), &store), KV_ERR_NOT_A_DATABASE);
    COMPARE(fingerprint(path_in(dir, "empty")), ==, before);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    CHECK(mkdir(path_in(dir, "nothing"), 0777) == 0);
    creates_nothing(path_in(dir, "nothing"));
    closed_properly(path_in(dir, "closed"));
    crashed(path_in(dir, "crashed"), crash_in_one_segment);
    crashed(path_in(dir, "crashed-segments"), crash_in_many_segments);
    no_permission(path_in(dir, "no-permission"));
    without_what_can_be_done_without(path_in(dir, "without"));
    return 0;
}
