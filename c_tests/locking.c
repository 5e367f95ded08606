/*
 * One process writes. The kernel's lock alone decides: who holds it is alive, and nobody else matters.
 */
#include "files.h"

static const char *self;

/* The status of opening in another process. */
static int32_t open_elsewhere(const char *path, uint64_t read_only) {
    int answer[2];
    int32_t opened;
    pid_t child;
    CHECK(pipe(answer) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        kv_store *store;
        opened = try_open(path, WITH({KV_OPT_READ_ONLY, read_only}), &store);
        if (opened == KV_OK) OK(kv_close(store));
        CHECK(write(answer[1], &opened, sizeof opened) == sizeof opened);
        end_child();
    }
    check_child(child);
    CHECK(read(answer[0], &opened, sizeof opened) == sizeof opened);
    close(answer[0]);
    close(answer[1]);
    return opened;
}

static void one_writer(const char *path) {
    kv_store *store = open_store(path), *second = (kv_store *)&second;
    OK(set_text(store, "k", "v"));
    for (int i = 0; i < 3; i++) {
        STATUS(try_open(path, NULL, &second), KV_ERR_LOCKED);
        CHECK(second == NULL);
        STATUS(try_open(path, WITH({KV_OPT_READ_ONLY, 1}), &second), KV_ERR_LOCKED);
        /* The refused attempts have not cost the first handle its lock. */
        STATUS(open_elsewhere(path, 0), KV_ERR_LOCKED);
        STATUS(open_elsewhere(path, 1), KV_ERR_LOCKED);
    }
    HAS(store, "k", "v");
    OK(set_text(store, "k", "w"));
    OK(kv_close(store));
    OK(open_elsewhere(path, 0));
    OK(open_elsewhere(path, 1));
    store = open_store(path);
    HAS(store, "k", "w");
    OK(kv_close(store));
}

/* By another name it is still the same database. */
static void other_names(const char *dir, const char *path) {
    kv_store *store = open_store(path), *second;
    const char *link = path_in(dir, "link");
    CHECK(symlink(path, link) == 0);
    STATUS(try_open(link, NULL, &second), KV_ERR_LOCKED);
    STATUS(try_open(path_in(dir, "./db"), NULL, &second), KV_ERR_LOCKED);
    OK(kv_close(store));
    store = open_store(link);
    STATUS(try_open(path, NULL, &second), KV_ERR_LOCKED);
    OK(kv_close(store));
    CHECK(unlink(link) == 0);
}

static void readers_and_a_writer(const char *path) {
    kv_store *reader = open_with(path, WITH({KV_OPT_READ_ONLY, 1})), *writer;
    kv_store *other_reader = open_with(path, WITH({KV_OPT_READ_ONLY, 1}));
    STATUS(try_open(path, NULL, &writer), KV_ERR_LOCKED);
    STATUS(open_elsewhere(path, 0), KV_ERR_LOCKED);
    OK(open_elsewhere(path, 1));
    OK(kv_close(reader));
    STATUS(try_open(path, NULL, &writer), KV_ERR_LOCKED);
    OK(kv_close(other_reader));
    writer = open_store(path);
    STATUS(open_elsewhere(path, 1), KV_ERR_LOCKED);
    OK(kv_close(writer));
}

/* What lies in the lock file does not matter. */
static void leftover_lock_files(const char *path) {
    static const char *const JUNK[] = {"", "12345\n", "1", "\xff\xfe garbage \x80", "99999999999999999999"};
    for (size_t i = 0; i < sizeof JUNK / sizeof *JUNK; i++) {
        char number[16];
        kv_store *store;
        write_file(path_in(path, "LOCK"), JUNK[i], strlen(JUNK[i]));
        store = open_store(path);
        STATUS(open_elsewhere(path, 0), KV_ERR_LOCKED);
        OK(kv_close(store));
        /* The number of a process that is alive and has nothing to do with it. */
        snprintf(number, sizeof number, "%ld\n", (long)getpid());
        write_file(path_in(path, "LOCK"), number, strlen(number));
        OK(kv_close(open_store(path)));
    }
    CHECK(unlink(path_in(path, "LOCK")) == 0);
    OK(kv_close(open_store(path)));
}

static void hold_and_write(const char *path) {
    kv_store *store = open_store(path);
    OK(set_text(store, "from", "the child"));
}

static void a_killed_holder_holds_nothing(const char *path) {
    kv_store *store;
    in_a_killed_child(hold_and_write, path);
    store = open_store(path);
    HAS(store, "from", "the child");
    OK(kv_close(store));
}

#ifdef __linux__
/* Descriptors of this process that lead below `dir`. */
static int descriptors_below(const char *dir) {
    struct listing list = list_dir("/proc/self/fd", "");
    char target[4096];
    int found = 0;
    for (size_t i = 0; i < list.count; i++) {
        ssize_t len = readlink(path_in("/proc/self/fd", list.names[i]), target, sizeof target - 1);
        if (len < 0) continue;
        target[len] = 0;
        found += strncmp(target, dir, strlen(dir)) == 0;
    }
    free_listing(list);
    return found;
}

/* A program that is started while the store is open inherits no descriptor of it, and does not keep it locked. */
static void started_programs_inherit_nothing(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 4096}));
    int ready[2];
    char byte, real[4096];
    pid_t child;
    for (int i = 0; i < 100; i++) OK(set_numbered(store, i, 1, 200));
    CHECK(realpath(path, real) != NULL);
    CHECK(pipe(ready) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char descriptor[16];
        snprintf(descriptor, sizeof descriptor, "%d", ready[1]);
        execl(self, self, "--child", real, descriptor, (char *)NULL);
        _exit(1);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    CHECK(byte == '0');
    OK(kv_close(store));
    OK(kv_close(open_store(path)));
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, NULL, 0) == child);
    close(ready[0]);
    close(ready[1]);
}

static int child_main(char **argv) {
    char answer = descriptors_below(argv[2]) == 0 ? '0' : '1';
    CHECK(write(atoi(argv[3]), &answer, 1) == 1);
    return pause();
}
#endif

int main(int argc, char **argv) {
    const char *dir, *path;
#ifdef __linux__
    if (argc == 4 && strcmp(argv[1], "--child") == 0) return child_main(argv);
#endif
    self = argv[0];
    dir = data_dir(argc, argv);
    path = path_in(dir, "db");
    one_writer(path);
    other_names(dir, path);
    readers_and_a_writer(path);
    leftover_lock_files(path);
    a_killed_holder_holds_nothing(path);
#ifdef __linux__
    started_programs_inherit_nothing(path);
#endif
    return 0;
}
