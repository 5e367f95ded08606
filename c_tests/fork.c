/*
 * fork() with a store open: the child can do no harm, and the parent does not notice.
 */
#include "check.h"

/* Every call on an inherited handle says so, at once and with its results cleared. */
static void every_call_in_the_child(kv_store *store) {
    uint8_t *value = (uint8_t *)&value, buffer[16];
    size_t len = 77;
    struct kv_stats stats;
    struct kv_recovery_info info;
    STATUS(set_text(store, "k", "from the child"), KV_ERR_FORKED);
    STATUS(kv_get(store, bytes("k"), 1, &value, &len), KV_ERR_FORKED);
    CHECK(value == NULL && len == 0);
    len = 77;
    STATUS(kv_get_into(store, bytes("k"), 1, buffer, sizeof buffer, &len), KV_ERR_FORKED);
    CHECK(len == 0);
    STATUS(kv_exists(store, bytes("k"), 1), KV_ERR_FORKED);
    STATUS(del_text(store, "k"), KV_ERR_FORKED);
    STATUS(kv_sync(store), KV_ERR_FORKED);
    STATUS(kv_compact(store), KV_ERR_FORKED);
    STATUS(kv_maintain(store, 1000), KV_ERR_FORKED);
    STATUS(kv_stats(store, &stats, sizeof stats), KV_ERR_FORKED);
    STATUS(kv_recovery_info(store, &info, sizeof info), KV_ERR_FORKED);
    for (int i = 0; i < 3; i++) STATUS(kv_close(store), KV_ERR_FORKED);
}

static void the_parent_goes_on(const char *path) {
    kv_store *store = open_store(path), *second;
    uint8_t *value;
    size_t len;
    pid_t child;
    OK(set_text(store, "k", "v"));
    OK(kv_get(store, bytes("k"), 1, &value, &len));
    child = fork();
    if (child == 0) {
        every_call_in_the_child(store);
        STATUS(try_open(path, NULL, &second), KV_ERR_LOCKED);
        /* A value from before is plain memory. */
        CHECK(len == 1 && *value == 'v');
        kv_free_buf(value);
        end_child();
    }
    check_child(child);
    kv_free_buf(value);
    /* The child, closing and ending, has neither written nor unlocked. */
    STATUS(try_open(path, NULL, &second), KV_ERR_LOCKED);
    child = fork();
    if (child == 0) {
        STATUS(try_open(path, NULL, &second), KV_ERR_LOCKED);
        end_child();
    }
    check_child(child);
    HAS(store, "k", "v");
    OK(set_text(store, "k", "w"));
    OK(kv_compact(store));
    OK(kv_close(store));
    store = open_store(path);
    HAS(store, "k", "w");
    OK(kv_close(store));
}

/* All that runs when a program ends runs in the child too. */
static void the_child_ends_as_programs_do(const char *path) {
    kv_store *store = open_store(path), *second;
    int status;
    pid_t child;
    OK(set_text(store, "k", "v"));
    child = fork();
    if (child == 0) exit(0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    STATUS(try_open(path, NULL, &second), KV_ERR_LOCKED);
    HAS(store, "k", "v");
    OK(set_text(store, "k", "w"));
    OK(kv_close(store));
    store = open_store(path);
    HAS(store, "k", "w");
    OK(kv_close(store));
}

/* The parent closes and opens again while a child that inherited everything is still there. */
static void a_sleeping_child_keeps_nothing_locked(const char *path) {
    kv_store *store = open_store(path);
    pid_t child;
    OK(set_text(store, "k", "1"));
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        for (;;) pause();
    }
    OK(kv_close(store));
    store = open_store(path);
    OK(set_text(store, "k", "2"));
    OK(kv_close(store));
    OK(kv_close(open_with(path, WITH({KV_OPT_READ_ONLY, 1}))));
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, NULL, 0) == child);
    store = open_store(path);
    HAS(store, "k", "2");
    OK(kv_close(store));
}

/* The child opens for itself what the parent has closed, even by a handle at the same address. */
static void the_child_opens_for_itself(const char *path) {
    kv_store *store = open_store(path);
    int closed[2];
    char byte;
    pid_t child;
    OK(set_text(store, "k", "parent"));
    CHECK(pipe(closed) == 0);
    child = fork();
    if (child == 0) {
        kv_store *own;
        CHECK(read(closed[0], &byte, 1) == 1);
        own = open_store(path);
        HAS(own, "k", "parent");
        OK(set_text(own, "k", "child"));
        STATUS(set_text(store, "k", "no"), KV_ERR_FORKED);
        OK(kv_compact(own));
        OK(kv_close(own));
        end_child();
    }
    OK(kv_close(store));
    CHECK(write(closed[1], "x", 1) == 1);
    check_child(child);
    store = open_store(path);
    HAS(store, "k", "child");
    OK(kv_close(store));
    close(closed[0]);
    close(closed[1]);
}

struct writer {
    kv_store *store;
    int number;
    volatile bool *stop;
    uint64_t written;
};

static void *write_until_stopped(void *argument) {
    struct writer *writer = argument;
    while (!*writer->stop) {
        OK(set_numbered(writer->store, writer->number, ++writer->written, 300));
        HAS_NUMBERED(writer->store, writer->number, writer->written, 300);
    }
    return NULL;
}

/* A child forked in the middle of other threads' work, whatever they hold at that moment, is told at once. */
static void in_the_middle_of_work(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 65536}, {KV_OPT_COMPACT_THRESHOLD, 0}));
    volatile bool stop = false;
    struct writer writers[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        writers[i] = (struct writer){store, i, &stop, 0};
        CHECK(pthread_create(&threads[i], NULL, write_until_stopped, &writers[i]) == 0);
    }
    for (int i = 0; i < (quick() ? 5 : 100); i++) {
        pid_t child = fork();
        if (child == 0) {
            /* Waiting for a lock that nobody in this process will release ends here. */
            alarm(30);
            every_call_in_the_child(store);
            end_child();
        }
        check_child(child);
    }
    stop = true;
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    OK(kv_close(store));
    store = open_store(path);
    for (int i = 0; i < 4; i++) HAS_NUMBERED(store, i, writers[i].written, 300);
    OK(kv_close(store));
}

/* Grandchildren have inherited too. */
static void grandchildren(const char *path) {
    kv_store *store = open_store(path);
    pid_t child = fork();
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
            every_call_in_the_child(store);
            end_child();
        }
        check_child(grandchild);
        STATUS(kv_sync(store), KV_ERR_FORKED);
        end_child();
    }
    check_child(child);
    OK(kv_close(store));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    the_parent_goes_on(path_in(dir, "parent"));
    /* valgrind takes what the child has inherited for leaks of its own. */
    if (!quick()) the_child_ends_as_programs_do(path_in(dir, "ends"));
    a_sleeping_child_keeps_nothing_locked(path_in(dir, "sleeping"));
    the_child_opens_for_itself(path_in(dir, "itself"));
    grandchildren(path_in(dir, "grandchildren"));
    in_the_middle_of_work(path_in(dir, "work"));
    return 0;
}
