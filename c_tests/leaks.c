/*
 * A thousand times open, work, close: no descriptor, mapping or thread is left, nor after opening has failed.
 */
#include "files.h"

struct held {
    size_t descriptors, mappings, threads;
};

static struct held held(void) {
    return (struct held){count_of_self("fd"), count_of_self("maps"), count_of_self("task")};
}

static void cycle(const char *path, int i) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 8192}, {KV_OPT_BACKGROUND, i % 3 != 0}));
    /* Writing makes closing sync, which takes its time; some cycles only open and close. */
    if (i % 4 < 2) {
        OK(set_numbered(store, i % 40, i, 300));
        HAS_NUMBERED(store, i % 40, i, 300);
    }
    if (i % 50 == 0) OK(kv_compact(store));
    OK(kv_close(store));
}

static void failing_cycle(const char *dir, const char *path, int i) {
    kv_store *store, *second;
    if (i % 10 == 0) {
        OK(try_open(path, NULL, &store));
        STATUS(try_open(path, NULL, &second), KV_ERR_LOCKED);
        OK(kv_close(store));
    }
    STATUS(try_open(path_in(dir, "file"), NULL, &second), KV_ERR_NOT_A_DATABASE);
    STATUS(try_open(path, WITH({KV_OPT_ERROR_IF_EXISTS, 1}), &second), KV_ERR_EXISTS);
    CHECK(try_open(path_in(dir, "damaged"), NULL, &second) < 0);
    CHECK(try_open(path_in(dir, "no/parent"), NULL, &second) < 0);
}

static void make_damaged(const char *from, const char *to) {
    struct listing files;
    copy_database(from, to);
    files = list_dir(to, "MANIFEST");
    CHECK(files.count == 1);
    write_file(path_in(to, files.names[0]), "damaged", 7);
    free_listing(files);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    const char *path = path_in(dir, "db");
    struct held before, after;
    int cycles = quick() ? 30 : 1000;
    write_file(path_in(dir, "file"), "x", 1);
    /* What is set up once and for all is set up in the first rounds. */
    for (int i = 0; i < 30; i++) cycle(path, i);
    make_damaged(path, path_in(dir, "damaged"));
    for (int i = 0; i < 10; i++) failing_cycle(dir, path, i);
    before = held();
    if (before.descriptors == 0) skip("there is no /proc/self/fd to count in");
    for (int i = 0; i < cycles; i++) {
        cycle(path, i);
        if (i % 5 == 0) failing_cycle(dir, path, i);
    }
    after = held();
    COMPARE(after.descriptors, ==, before.descriptors);
    COMPARE(after.threads, ==, before.threads);
    /* The allocator may have mapped a little more. */
    COMPARE(after.mappings, <=, before.mappings + 10);
    return 0;
}
