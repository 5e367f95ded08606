/*
 * Checkpoints: equal to the store at one moment, made beside readers and writers; independent of it ever after; shared
 * where that is safe; all or nothing.
 */
#include "files.h"

enum { KEYS = 400, WRITERS = 3 };

/* Segments are small, so that there are many that can be shared. */
#define SMALL(io) WITH({KV_OPT_SEGMENT_SIZE, 16384}, {KV_OPT_COMPACT_THRESHOLD, 65536}, {KV_OPT_IO, (io)})

static void write_all(kv_store *store, uint64_t version) {
    for (uint64_t key = 0; key < KEYS; key++) OK(set_numbered(store, key, version, 300));
}

static void check_all(kv_store *store, uint64_t version) {
    COMPARE(stats_of(store).keys, ==, KEYS);
    for (uint64_t key = 0; key < KEYS; key++) HAS_NUMBERED(store, key, version, 300);
}

static void check_at(const char *path, uint64_t version) {
    kv_store *store = open_store(path);
    struct kv_recovery_info info = recovery_of(store);
    CHECK(info.clean);
    COMPARE(info.damaged_records, ==, 0);
    check_all(store, version);
    OK(kv_close(store));
}

/* A number that changes if the names or the contents of the files do, but for the lock file. */
static uint64_t contents(const char *dir) {
    struct listing list = list_dir(dir, "");
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < list.count; i++) {
        struct bytes content;
        if (strcmp(list.names[i], "LOCK") == 0) continue;
        content = read_file(path_in(dir, list.names[i]));
        for (const char *c = list.names[i]; *c; c++) hash = (hash ^ (uint8_t)*c) * UINT64_C(0x100000001b3);
        for (size_t j = 0; j < content.len; j++) hash = (hash ^ content.data[j]) * UINT64_C(0x100000001b3);
        free(content.data);
    }
    free_listing(list);
    return hash;
}

static struct stat stat_of(const char *path) {
    struct stat info;
    CHECK(stat(path, &info) == 0);
    return info;
}

/* How many files ending in `suffix` are the same file in both directories. */
static size_t shared_files(const char *a, const char *b, const char *suffix) {
    struct listing list = list_dir(a, suffix);
    size_t count = 0;
    for (size_t i = 0; i < list.count; i++) {
        struct stat in_a = stat_of(path_in(a, list.names[i])), in_b;
        if (stat(path_in(b, list.names[i]), &in_b) != 0) continue;
        if (in_a.st_ino != in_b.st_ino || in_a.st_dev != in_b.st_dev) continue;
        COMPARE(in_a.st_nlink, >=, 2);
        count++;
    }
    free_listing(list);
    return count;
}

static size_t count_files(const char *dir, const char *suffix) {
    struct listing list = list_dir(dir, suffix);
    free_listing(list);
    return list.count;
}

/* --- Independence ------------------------------------------------------------------------- */

static void both_sides_live_on(const char *dir, uint64_t io) {
    const char *db = path_in(dir, "db"), *copy = path_in(dir, "copy");
    kv_store *store, *second;
    uint64_t before;
    CHECK(mkdir(dir, 0777) == 0);
    store = open_with(db, SMALL(io));
    write_all(store, 1);
    OK(kv_checkpoint(store, copy));
    COMPARE(shared_files(db, copy, ".log"), >=, 5);
    before = contents(copy);

    write_all(store, 2);
    OK(kv_compact(store));
    CHECK(contents(copy) == before);
    check_at(copy, 1);
    second = open_with(copy, SMALL(io));
    before = contents(db);
    write_all(second, 3);
    for (uint64_t key = 0; key < KEYS; key += 2) OK(del_numbered(second, key));
    OK(kv_compact(second));
    write_all(second, 4);
    CHECK(contents(db) == before);
    check_all(store, 2);
    check_all(second, 4);
    OK(kv_close(store));
    check_all(second, 4);
    OK(kv_close(second));
    check_at(db, 2);
    check_at(copy, 4);
}

static void work_on_both(const char *dir) {
    kv_store *store = open_with(path_in(dir, "db"), SMALL(KV_IO_AUTO));
    kv_store *copy;
    if (access(path_in(dir, "copy"), F_OK) != 0) {
        write_all(store, 5);
        OK(kv_checkpoint(store, path_in(dir, "copy")));
    }
    copy = open_with(path_in(dir, "copy"), SMALL(KV_IO_AUTO));
    write_all(store, 6);
    write_all(copy, 7);
    OK(kv_compact(store));
    OK(kv_compact(copy));
    for (uint64_t key = 0; key < KEYS / 2; key++) {
        OK(set_numbered(store, key, 6, 300));
        OK(set_numbered(copy, key, 7, 300));
    }
}

static void both_sides_are_killed(const char *dir) {
    CHECK(mkdir(dir, 0777) == 0);
    for (int round = 0; round < 3; round++) {
        kv_store *store, *copy;
        in_a_killed_child(work_on_both, dir);
        store = open_store(path_in(dir, "db"));
        check_all(store, 6);
        copy = open_store(path_in(dir, "copy"));
        check_all(copy, 7);
        if (round == 1) {
            OK(kv_close(store));
            OK(kv_close(copy));
            continue;
        }
        /* The recovery of one side has changed nothing of the other. */
        OK(kv_close(copy));
        check_all(store, 6);
        OK(kv_close(store));
    }
}

/* --- Under load --------------------------------------------------------------------------- */

struct writer {
    kv_store *store;
    uint64_t number;
    uint64_t acknowledged;
    bool stop;
    pthread_t thread;
};

/* Each writer has two keys that it sets in turn to ever larger numbers, and garbage to make. */
static void *keep_writing(void *argument) {
    struct writer *writer = argument;
    for (uint64_t n = 1; !__atomic_load_n(&writer->stop, __ATOMIC_ACQUIRE); n++) {
        char key[32];
        uint8_t value[200] = {0};
        memcpy(value, &n, 8);
        snprintf(key, sizeof key, "first-%" PRIu64, writer->number);
        OK(kv_set(writer->store, bytes(key), strlen(key), value, sizeof value));
        snprintf(key, sizeof key, "second-%" PRIu64, writer->number);
        OK(kv_set(writer->store, bytes(key), strlen(key), value, sizeof value));
        OK(set_numbered(writer->store, writer->number * 1000 + n % 300, n, 500));
        __atomic_store_n(&writer->acknowledged, n, __ATOMIC_RELEASE);
    }
    return NULL;
}

static uint64_t number_at(kv_store *store, const char *kind, uint64_t writer) {
    char key[32];
    uint8_t *value;
    size_t len;
    uint64_t number;
    snprintf(key, sizeof key, "%s-%" PRIu64, kind, writer);
    OK(kv_get(store, bytes(key), strlen(key), &value, &len));
    COMPARE(len, ==, 200);
    memcpy(&number, value, 8);
    kv_free_buf(value);
    return number;
}

/* In another process. */
static void check_moment(const char *path, const uint64_t *before, const uint64_t *after) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        kv_store *store = open_store(path);
        CHECK(recovery_of(store).clean);
        for (uint64_t i = 0; i < WRITERS; i++) {
            uint64_t first = number_at(store, "first", i), second = number_at(store, "second", i);
            COMPARE(second, <=, first);
            COMPARE(first, <=, second + 1);
            COMPARE(second, >=, before[i]);
            COMPARE(first, <=, after[i] + 1);
        }
        OK(kv_compact(store));
        OK(kv_close(store));
        end_child();
    }
    check_child(child);
}

static void under_load(const char *dir, uint64_t io) {
    static struct writer writers[WRITERS];
    const char *db = path_in(dir, "db");
    uint64_t before[WRITERS], after[WRITERS];
    kv_store *store;
    CHECK(mkdir(dir, 0777) == 0);
    store = open_with(db, SMALL(io));
    for (uint64_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.store = store, .number = i};
        CHECK(pthread_create(&writers[i].thread, NULL, keep_writing, &writers[i]) == 0);
    }
    for (int round = 0; round < (quick() ? 2 : 8); round++) {
        char name[32];
        for (int i = 0; i < WRITERS; i++) {
            while ((before[i] = __atomic_load_n(&writers[i].acknowledged, __ATOMIC_ACQUIRE)) == 0) sleep_ms(1);
        }
        snprintf(name, sizeof name, "copy-%d", round);
        OK(kv_checkpoint_with(store, path_in(dir, name), round ? path_in(dir, "copy-0") : NULL, NULL, NULL));
        for (int i = 0; i < WRITERS; i++) after[i] = __atomic_load_n(&writers[i].acknowledged, __ATOMIC_ACQUIRE);
        check_moment(path_in(dir, name), before, after);
    }
    for (int i = 0; i < WRITERS; i++) __atomic_store_n(&writers[i].stop, true, __ATOMIC_RELEASE);
    for (int i = 0; i < WRITERS; i++) CHECK(pthread_join(writers[i].thread, NULL) == 0);
    OK(kv_close(store));
}

/* --- Killed in the middle ----------------------------------------------------------------- */

/* Makes checkpoints, each of a newer version than the one before, until it is killed. */
static void make_checkpoints(const char *dir, int first) {
    kv_store *store = open_with(path_in(dir, "db"), SMALL(KV_IO_AUTO));
    for (int number = first;; number++) {
        char name[32];
        write_all(store, (uint64_t)number);
        snprintf(name, sizeof name, "%d", number);
        OK(kv_checkpoint(store, path_in(dir, name)));
    }
}

static void killed_in_the_middle(const char *dir) {
    uint64_t random = 88172645463325252u + (uint64_t)getpid();
    int number = 0;
    CHECK(mkdir(dir, 0777) == 0);
    for (int round = 0; round < (quick() ? 2 : 12); round++) {
        char name[32];
        kv_store *store;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) make_checkpoints(dir, number);
        do {
            snprintf(name, sizeof name, "%d", ++number);
            sleep_ms(1);
            /* Once the first is there, another one is being made, or what comes before it. */
            while (access(path_in(dir, name), F_OK) != 0) sleep_ms(1);
        } while (next_random(&random) % 2);
        usleep((useconds_t)(next_random(&random) % 20000));
        CHECK(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child);
        /* Those that were finished, and the last, of which there may be all or nothing. */
        for (;; number++) {
            int32_t status;
            snprintf(name, sizeof name, "%d", number);
            if (access(path_in(dir, name), F_OK) != 0) break;
            status = try_open(path_in(dir, name), WITH({KV_OPT_CREATE_IF_MISSING, 0}), &store);
            if (status == KV_OK) {
                check_all(store, (uint64_t)number);
                OK(kv_close(store));
            } else {
                CHECK(status == KV_ERR_NOT_A_DATABASE || status == KV_ERR_CORRUPT);
                CHECK(access(path_in(path_in(dir, name), "MANIFEST"), F_OK) != 0);
            }
        }
        store = open_store(path_in(dir, "db"));
        CHECK(recovery_of(store).damaged_records == 0);
        OK(kv_close(store));
    }
}

/* --- Sharing ------------------------------------------------------------------------------ */

static void the_base_is_shared(const char *dir) {
    const char *db = path_in(dir, "db"), *a = path_in(dir, "a"), *b = path_in(dir, "b");
    kv_store *store;
    CHECK(mkdir(dir, 0777) == 0);
    store = open_with(db, SMALL(KV_IO_AUTO));
    write_all(store, 1);
    OK(kv_checkpoint(store, a));
    for (uint64_t key = 0; key < 50; key++) OK(set_numbered(store, KEYS + key, 1, 300));
    OK(kv_checkpoint_with(store, b, a, NULL, NULL));
    COMPARE(shared_files(a, b, ".log"), >=, 5);
    COMPARE(shared_files(a, b, ".hint"), >=, 5);
    /* The end of the log is everybody's own, and so is MANIFEST. */
    COMPARE(shared_files(db, a, ".log"), ==, count_files(a, ".log") - 1);
    COMPARE(shared_files(db, b, ".log"), ==, count_files(b, ".log") - 1);
    COMPARE(shared_files(a, b, "MANIFEST"), ==, 0);
    OK(kv_close(store));
    remove_dir(db);
    check_at(a, 1);
    remove_dir(a);
    store = open_store(b);
    COMPARE(stats_of(store).keys, ==, KEYS + 50);
    for (uint64_t key = 0; key < KEYS + 50; key++) HAS_NUMBERED(store, key, 1, 300);
    OK(kv_close(store));
}

/* Incremental backup to another file system, if there is one to be had. */
static void to_another_file_system(const char *dir) {
    char far[] = "/dev/shm/kvstore-checkpoint-XXXXXX";
    const char *a, *b;
    kv_store *store;
    uint64_t copied;
    CHECK(mkdir(dir, 0777) == 0);
    if (mkdtemp(far) == NULL) return;
    if (stat_of(far).st_dev == stat_of(dir).st_dev) {
        CHECK(rmdir(far) == 0);
        return;
    }
    a = path_in(far, "a");
    b = path_in(far, "b");
    store = open_with(path_in(dir, "db"), SMALL(KV_IO_AUTO));
    write_all(store, 1);
    OK(kv_checkpoint(store, a));
    for (uint64_t key = 0; key < 50; key++) OK(set_numbered(store, key, 1, 300));
    OK(kv_checkpoint_with(store, b, a, NULL, NULL));
    copied = count_files(b, ".log") - shared_files(a, b, ".log");
    COMPARE(shared_files(a, b, ".log"), ==, count_files(a, ".log") - 1);
    COMPARE(copied, <=, 4);
    OK(kv_close(store));
    check_at(a, 1);
    check_at(b, 1);
    remove_dir(far);
}

/* --- All or nothing ----------------------------------------------------------------------- */

struct watch {
    uint64_t calls, done, total, cancel_at;
    kv_store *store;
};

static int32_t on_progress(void *ctx, uint64_t done, uint64_t total) {
    struct watch *watch = ctx;
    watch->calls++;
    if (watch->calls == 1) {
        watch->total = total;
        COMPARE(done, ==, 0);
    }
    COMPARE(total, ==, watch->total);
    COMPARE(done, >=, watch->done);
    COMPARE(done, <=, total);
    watch->done = done;
    /* What is written now is no part of it. */
    OK(set_numbered(watch->store, watch->calls % KEYS, 2, 300));
    OK(kv_compact(watch->store));
    return watch->calls == watch->cancel_at;
}

static void cancelled_at_every_call(const char *dir) {
    const char *copy = path_in(dir, "copy");
    kv_store *store;
    int32_t status = KV_ERR_CANCELLED;
    uint64_t at;
    CHECK(mkdir(dir, 0777) == 0);
    store = open_with(path_in(dir, "db"), SMALL(KV_IO_AUTO));
    for (at = 1; status != KV_OK; at = at < 4 ? at + 1 : at * 3) {
        struct watch watch = {.cancel_at = at, .store = store};
        write_all(store, 1);
        status = kv_checkpoint_with(store, copy, NULL, on_progress, &watch);
        if (status == KV_OK) {
            COMPARE(watch.done, ==, watch.total);
            COMPARE(watch.total, >=, KEYS * 300);
            COMPARE(watch.calls, <=, at);
        } else {
            STATUS(status, KV_ERR_CANCELLED);
            COMPARE(watch.calls, ==, at);
            CHECK(access(copy, F_OK) != 0);
        }
    }
    COMPARE(at, >, 4);
    check_at(copy, 1);
    OK(kv_close(store));
}

static void refused(const char *dir) {
    const char *db = path_in(dir, "db"), *file = path_in(dir, "file"), *empty = path_in(dir, "empty");
    kv_store *store, *other;
    char message[400];
    CHECK(mkdir(dir, 0777) == 0 && mkdir(empty, 0777) == 0);
    write_file(file, "x", 1);
    store = open_store(db);
    STATUS(kv_checkpoint(store, db), KV_ERR_EXISTS);
    STATUS(kv_checkpoint(store, file), KV_ERR_EXISTS);
    STATUS(kv_checkpoint(store, empty), KV_ERR_EXISTS);
    CHECK(kv_last_error(message, sizeof message) > 0 && strstr(message, empty) != NULL);
    COMPARE(count_files(empty, ""), ==, 0);
    STATUS(kv_checkpoint(store, path_in(dir, "no/copy")), KV_ERR_IO);
    CHECK(kv_last_error(message, sizeof message) > 0 && strstr(message, "no/copy") != NULL);
    STATUS(kv_checkpoint(store, NULL), KV_ERR_INVALID);
    STATUS(kv_checkpoint(store, ""), KV_ERR_INVALID);
    STATUS(kv_checkpoint(NULL, path_in(dir, "copy")), KV_ERR_INVALID);
    STATUS(kv_checkpoint_with(store, path_in(dir, "copy"), "", NULL, NULL), KV_ERR_INVALID);
    STATUS(kv_checkpoint_with(store, path_in(dir, "copy"), empty, NULL, NULL), KV_ERR_NOT_A_DATABASE);
    STATUS(kv_checkpoint_with(store, path_in(dir, "copy"), path_in(dir, "none"), NULL, NULL), KV_ERR_IO);
    CHECK(access(path_in(dir, "copy"), F_OK) != 0);

    /* One without anything in it. */
    OK(kv_checkpoint(store, path_in(dir, "nothing")));
    other = open_with(path_in(dir, "nothing"), WITH({KV_OPT_CREATE_IF_MISSING, 0}));
    COMPARE(stats_of(other).keys, ==, 0);
    OK(set_text(other, "a", "b"));
    OK(kv_close(other));
    OK(kv_close(store));

    /* What a crash in the middle leaves. */
    write_file(path_in(empty, "CHECKPOINT"), "x", 1);
    write_file(path_in(empty, "0000000001.log"), "x", 1);
    STATUS(try_open(empty, NULL, &other), KV_ERR_NOT_A_DATABASE);
    COMPARE(count_files(empty, ""), ==, 2);
}

static void of_a_read_only_store(const char *dir) {
    const char *db = path_in(dir, "db");
    kv_store *store;
    uint64_t before;
    CHECK(mkdir(dir, 0777) == 0);
    in_a_killed_child(work_on_both, dir);
    before = contents(db);
    store = open_with(db, WITH({KV_OPT_READ_ONLY, 1}));
    OK(kv_checkpoint(store, path_in(dir, "of-killed")));
    check_all(store, 6);
    OK(kv_close(store));
    CHECK(contents(db) == before);
    check_at(path_in(dir, "of-killed"), 6);
    check_at(path_in(dir, "of-killed"), 6);
    store = open_store(db);
    write_all(store, 8);
    OK(kv_compact(store));
    OK(kv_close(store));
    check_at(path_in(dir, "of-killed"), 6);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    both_sides_live_on(path_in(dir, "sides"), KV_IO_AUTO);
    both_sides_live_on(path_in(dir, "sides-syscall"), KV_IO_SYSCALL);
    both_sides_are_killed(path_in(dir, "killed"));
    under_load(path_in(dir, "load"), KV_IO_AUTO);
    under_load(path_in(dir, "load-syscall"), KV_IO_SYSCALL);
    killed_in_the_middle(path_in(dir, "interrupted"));
    the_base_is_shared(path_in(dir, "base"));
    to_another_file_system(path_in(dir, "far"));
    cancelled_at_every_call(path_in(dir, "cancelled"));
    refused(path_in(dir, "refused"));
    of_a_read_only_store(path_in(dir, "read-only"));
    return 0;
}
