/*
 * Killed at any moment, during any call: what was acknowledged is there, in order, and the one call that was under way
 * has either happened or not; also where several threads write. KV_ROUNDS sets the number of kills for each combination of
 * options.
 */
#include "check.h"

#include <poll.h>
#include <sys/mman.h>

enum { KEYS = 200 };

/* What operation number `n` does, the same for the writer and for the model. */
struct operation {
    uint64_t key;
    bool deletes;
    size_t len;
};

static struct operation operation(uint64_t n) {
    uint64_t random = (n + 1) * UINT64_C(0x9E3779B97F4A7C15), what;
    struct operation operation;
    next_random(&random);
    operation.key = next_random(&random) % KEYS;
    what = next_random(&random) % 1000;
    operation.deletes = what < 250;
    operation.len = what < 999 ? next_random(&random) % 600 : 200000;
    return operation;
}

/* How far the writer has come. Operation numbers start with 1. */
static uint64_t acknowledged;

/* Acknowledges each operation over a pipe. */
static void write_until_killed(const char *path, const struct setting *settings, uint64_t first, int pipe) {
    kv_store *store = open_with(path, settings);
    for (uint64_t n = first;; n++) {
        struct operation op = operation(n);
        if (op.deletes) {
            CHECK(del_numbered(store, op.key) >= 0);
        } else {
            OK(set_numbered(store, op.key, n, op.len));
        }
        CHECK(write(pipe, &n, sizeof n) == sizeof n);
        if (n % 1500 == 0) OK(kv_compact(store));
        if (n % 400 == 0) OK(kv_sync(store));
    }
}

/* The number of the operation that each key's value is from; 0 if there is none. */
static uint64_t model[KEYS];
static uint64_t applied;

static void apply(uint64_t n) {
    struct operation op = operation(n);
    model[op.key] = op.deletes ? 0 : n;
    applied = n;
}

static void check_key(kv_store *store, uint64_t key) {
    if (model[key]) {
        HAS_NUMBERED(store, key, model[key], operation(model[key]).len);
    } else {
        HAS_NOT_NUMBERED(store, key);
    }
}

/* Whether the operation that was under way has happened: its key tells. */
static bool happened(kv_store *store, uint64_t n) {
    struct operation op = operation(n);
    char key[32];
    uint8_t *value, *expected;
    size_t len, key_len = numbered_key(op.key, key);
    int32_t status = kv_get(store, bytes(key), key_len, &value, &len);
    bool same;
    if (op.deletes) {
        kv_free_buf(value);
        return status == KV_NOT_FOUND;
    }
    if (status == KV_NOT_FOUND) return false;
    OK(status);
    expected = malloc(op.len + 1);
    CHECK(expected != NULL);
    fill(expected, op.len, op.key * 1000003 + n);
    same = len == op.len && memcmp(value, expected, len) == 0;
    free(expected);
    kv_free_buf(value);
    return same;
}

static void check_after_kill(const char *path, const struct setting *settings) {
    kv_store *store = open_with(path, settings);
    struct kv_recovery_info info = recovery_of(store);
    uint64_t keys = 0;
    COMPARE(info.damaged_records, ==, 0);
    while (applied < acknowledged) apply(applied + 1);
    if (happened(store, applied + 1)) apply(applied + 1);
    for (uint64_t key = 0; key < KEYS; key++) {
        check_key(store, key);
        keys += model[key] != 0;
    }
    COMPARE(stats_of(store).keys, ==, keys);
    OK(kv_close(store));
}

/* Takes what has been acknowledged. False once the writer is gone. Writes of so few bytes come whole. */
static bool hear(int pipe) {
    uint64_t numbers[512];
    ssize_t len = read(pipe, numbers, sizeof numbers);
    CHECK(len >= 0 && len % (ssize_t)sizeof *numbers == 0);
    for (ssize_t n = 0; n < len / (ssize_t)sizeof *numbers; n++) {
        COMPARE(numbers[n], ==, acknowledged + 1);
        acknowledged = numbers[n];
    }
    return len > 0;
}

static void rounds(const char *path, const struct setting *settings, uint64_t count) {
    uint64_t random = 2463534242u + (uint64_t)getpid();
    memset(model, 0, sizeof model);
    applied = 0;
    for (uint64_t round = 0; round < count; round++) {
        double delay = (double)(next_random(&random) % (round % 4 == 0 ? 3000 : 25000)) / 1e6, start = now();
        int ends[2];
        pid_t child;
        CHECK(pipe(ends) == 0);
        acknowledged = applied;
        child = fork();
        DOING("%s, round %" PRIu64 ", from operation %" PRIu64 " on", path, round, applied + 1);
        CHECK(child >= 0);
        if (child == 0) write_until_killed(path, settings, applied + 1, ends[1]);
        close(ends[1]);
        while (now() - start < delay) {
            struct pollfd heard = {ends[0], POLLIN, 0};
            if (poll(&heard, 1, 1) > 0 && !hear(ends[0])) break;
        }
        CHECK(kill(child, SIGKILL) == 0);
        while (hear(ends[0])) {
        }
        close(ends[0]);
        {
            int status;
            CHECK(waitpid(child, &status, 0) == child);
            /* A writer that ended by itself has failed a check of its own. */
            CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        }
        check_after_kill(path, settings);
    }
    CHECK(count < 10 || applied > 0);
}

/* Several threads, each with keys of its own, write until they are killed. */
enum { THREADS = 4, OWN_KEYS = 50 };

static struct own {
    kv_store *store;
    uint64_t thread;
    /* The number of the last operation that was acknowledged. Operation numbers start with 1. */
    uint64_t acknowledged;
} *writers;

static uint64_t own_key(const struct own *writer, uint64_t n) { return writer->thread * 1000 + n % OWN_KEYS; }

static bool own_deletes(uint64_t n) { return n % 7 == 0 && n > OWN_KEYS; }

static size_t own_len(uint64_t n) { return n % 97 == 0 ? 5000 : n * 31 % 400; }

static void *write_own(void *data) {
    struct own *writer = data;
    for (uint64_t n = writer->acknowledged + 1;; n++) {
        if (own_deletes(n)) {
            CHECK(del_numbered(writer->store, own_key(writer, n)) >= 0);
        } else {
            OK(set_numbered(writer->store, own_key(writer, n), n, own_len(n)));
        }
        __atomic_store_n(&writer->acknowledged, n, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void write_own_until_killed(const char *path, const struct setting *settings) {
    kv_store *store = open_with(path, settings);
    pthread_t thread;
    for (int i = 0; i < THREADS; i++) {
        writers[i].store = store;
        CHECK(pthread_create(&thread, NULL, write_own, &writers[i]) == 0);
    }
    for (;;) pause();
}

/* Whether the keys of a writer are as after its operation number `n`. */
static bool is_as_after(kv_store *store, const struct own *writer, uint64_t n) {
    for (uint64_t last = n; last + OWN_KEYS > n && last > 0; last--) {
        char key[32];
        uint8_t *value = NULL, expected[5000];
        size_t len, key_len = numbered_key(own_key(writer, last), key);
        int32_t status = kv_get(store, bytes(key), key_len, &value, &len);
        bool same = own_deletes(last) ? status == KV_NOT_FOUND : status == KV_OK && len == own_len(last);
        CHECK(status >= 0);
        if (same && status == KV_OK) {
            fill(expected, len, own_key(writer, last) * 1000003 + last);
            same = memcmp(value, expected, len) == 0;
        }
        kv_free_buf(value);
        if (!same) return false;
    }
    return true;
}

static void rounds_of_threads(const char *path, const struct setting *settings, uint64_t count) {
    uint64_t random = 88172645463325252u + (uint64_t)getpid();
    writers = mmap(NULL, THREADS * sizeof *writers, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(writers != MAP_FAILED);
    for (int i = 0; i < THREADS; i++) writers[i] = (struct own){NULL, (uint64_t)i, 0};
    for (uint64_t round = 0; round < count; round++) {
        useconds_t delay = (useconds_t)(2000 + next_random(&random) % 20000);
        int status;
        kv_store *store;
        pid_t child = fork();
        DOING("%s, round %" PRIu64, path, round);
        CHECK(child >= 0);
        if (child == 0) write_own_until_killed(path, settings);
        usleep(delay);
        CHECK(kill(child, SIGKILL) == 0);
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        store = open_with(path, settings);
        COMPARE(recovery_of(store).damaged_records, ==, 0);
        for (int i = 0; i < THREADS; i++) {
            struct own *writer = &writers[i];
            DOING("%s, round %" PRIu64 ", thread %d, operation %" PRIu64, path, round, i, writer->acknowledged);
            if (!is_as_after(store, writer, writer->acknowledged)) {
                CHECK(is_as_after(store, writer, writer->acknowledged + 1));
                writer->acknowledged++;
            }
        }
        OK(kv_close(store));
    }
    for (int i = 0; i < THREADS; i++) CHECK(count < 10 || writers[i].acknowledged > OWN_KEYS);
    CHECK(munmap(writers, THREADS * sizeof *writers) == 0);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    uint64_t count = from_environment("KV_ROUNDS", quick() ? 2 : 36);
    rounds(path_in(dir, "default"), WITH({KV_OPT_IO, KV_IO_AUTO}), count);
    rounds(path_in(dir, "small"), WITH({KV_OPT_SEGMENT_SIZE, 16384}, {KV_OPT_COMPACT_THRESHOLD, 0}), count);
    rounds(path_in(dir, "syscall"), WITH({KV_OPT_IO, KV_IO_SYSCALL}), count);
    rounds(path_in(dir, "small-syscall"),
           WITH({KV_OPT_IO, KV_IO_SYSCALL}, {KV_OPT_SEGMENT_SIZE, 16384}, {KV_OPT_COMPACT_THRESHOLD, 0}), count);
    rounds(path_in(dir, "inline"), WITH({KV_OPT_BACKGROUND, 0}, {KV_OPT_SEGMENT_SIZE, 65536}), count);
    rounds(path_in(dir, "always"), WITH({KV_OPT_SYNC, KV_SYNC_ALWAYS}, {KV_OPT_SEGMENT_SIZE, 65536}), count);
    rounds_of_threads(path_in(dir, "threads"), WITH({KV_OPT_IO, KV_IO_AUTO}), count);
    rounds_of_threads(path_in(dir, "threads-small"), WITH({KV_OPT_SEGMENT_SIZE, 65536}, {KV_OPT_COMPACT_THRESHOLD, 0}), count);
    return 0;
}
