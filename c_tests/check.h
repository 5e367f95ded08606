/*
 * What the C tests share: checks that say where they failed and why, and values that can be told from each other.
 * A program gets an empty directory as its argument, returns 0 if all is well, and is done in a few seconds.
 *
 * Environment:
 *   KV_QUICK=1           less work, for valgrind
 *   KV_TEST_IO=syscall   every store that open_store() opens uses system calls
 *
 * To be included first.
 */
#ifndef CHECK_H
#define CHECK_H

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kvstore.h"

/* --- Checks ------------------------------------------------------------------------------- */

/* What the program is at, for the message if a check fails. */
static char doing[256];
#define DOING(...) snprintf(doing, sizeof doing, __VA_ARGS__)

static inline void fail(const char *file, int line, const char *what) {
    char message[4096];
    kv_last_error(message, sizeof message);
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    if (doing[0]) fprintf(stderr, "    while: %s\n", doing);
    fprintf(stderr, "    last error of this thread: %s\n", message[0] ? message : "(none)");
    fflush(stderr);
    /* Not exit(): a forked child must not run what belongs to its parent. */
    _exit(1);
}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) fail(__FILE__, __LINE__, "failed: " #condition);                         \
    } while (0)

static inline void check_status(const char *file, int line, const char *call, int32_t status, int32_t expected) {
    char what[512];
    if (status == expected) return;
    snprintf(what, sizeof what, "%s\n    is %" PRId32 " (%s), expected %" PRId32 " (%s)", call, status,
             kv_strerror(status), expected, kv_strerror(expected));
    fail(file, line, what);
}

#define STATUS(call, expected) check_status(__FILE__, __LINE__, #call, (call), (expected))
#define OK(call) STATUS(call, KV_OK)

static inline void check_number(const char *file, int line, const char *left, const char *op, const char *right,
                                bool holds, uint64_t a, uint64_t b) {
    char what[512];
    if (holds) return;
    snprintf(what, sizeof what, "%s %s %s\n    does not hold for %" PRIu64 " and %" PRIu64, left, op, right, a, b);
    fail(file, line, what);
}

/* A comparison of two numbers that shows them: COMPARE(stats.keys, ==, 3). */
#define COMPARE(a, op, b)                                                                          \
    check_number(__FILE__, __LINE__, #a, #op, #b, (uint64_t)(a) op (uint64_t)(b), (uint64_t)(a), (uint64_t)(b))

/* Ends the program as not applicable on this machine. */
static inline void skip(const char *why) {
    printf("%s\n", why);
    fflush(stdout);
    _exit(77);
}

/* --- The program's surroundings ----------------------------------------------------------- */

/* `dir`/`name`, to be kept as long as the program likes. Not for several threads at once. */
static inline const char *path_in(const char *dir, const char *name) {
    /* Each path is stored once, and found again. */
    static struct path {
        struct path *next;
        char text[];
    } *paths;
    size_t len = strlen(dir) + 1 + strlen(name);
    struct path *path = malloc(sizeof *path + len + 1);
    CHECK(path != NULL);
    snprintf(path->text, len + 1, "%s/%s", dir, name);
    for (struct path *known = paths; known; known = known->next) {
        if (strcmp(known->text, path->text) == 0) {
            free(path);
            return known->text;
        }
    }
    path->next = paths;
    paths = path;
    return path->text;
}

static inline const char *data_dir(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s <an empty directory>\n", argv[0]);
        exit(2);
    }
    return argv[1];
}

static inline bool quick(void) {
    return getenv("KV_QUICK") != NULL;
}

static inline uint64_t from_environment(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static inline double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static inline void sleep_ms(unsigned ms) {
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&time, &time) != 0 && errno == EINTR) {
    }
}

/* Ends a forked child whose checks have all passed. By becoming another program, because nothing of what it has
 * inherited may be cleaned up, or taken for a leak, in the parent's place. */
static inline void end_child(void) {
    execlp("true", "true", (char *)NULL);
    _exit(1);
}

/* Waits for a child and checks that it came to its end_child(). */
static inline void check_child(pid_t child) {
    int status;
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) fprintf(stderr, "the child was killed by signal %d\n", WTERMSIG(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Runs `work` in a child that is killed when it is done, with everything that it has open. */
static inline void in_a_killed_child(void (*work)(const char *path), const char *path) {
    int done[2];
    char byte;
    pid_t child;
    CHECK(pipe(done) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(done[0]);
        work(path);
        CHECK(write(done[1], "x", 1) == 1);
        for (;;) pause();
    }
    close(done[1]);
    /* A child that fails a check ends without writing. */
    CHECK(read(done[0], &byte, 1) == 1);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, NULL, 0) == child);
    close(done[0]);
}

/* --- Opening ------------------------------------------------------------------------------ */

struct setting {
    int32_t option;
    uint64_t value;
};

/* kv_open with settings up to one whose option is 0; `settings` may be NULL. */
static inline int32_t try_open(const char *path, const struct setting *settings, kv_store **store) {
    const char *io = getenv("KV_TEST_IO");
    kv_options *options = kv_options_new();
    int32_t status;
    CHECK(options != NULL);
    if (io && strcmp(io, "syscall") == 0) OK(kv_options_set(options, KV_OPT_IO, KV_IO_SYSCALL));
    for (; settings && settings->option != 0; settings++) {
        OK(kv_options_set(options, settings->option, settings->value));
    }
    status = kv_open(path, options, store);
    kv_options_free(options);
    return status;
}

static inline kv_store *open_with(const char *path, const struct setting *settings) {
    kv_store *store;
    OK(try_open(path, settings, &store));
    CHECK(store != NULL);
    return store;
}

static inline kv_store *open_store(const char *path) {
    return open_with(path, NULL);
}

/* `WITH({KV_OPT_BACKGROUND, 0}, {KV_OPT_SYNC, KV_SYNC_ALWAYS})`, for the functions above. */
#define WITH(...) ((const struct setting[]){__VA_ARGS__, {0, 0}})

static inline struct kv_stats stats_of(kv_store *store) {
    struct kv_stats stats;
    OK(kv_stats(store, &stats, sizeof stats));
    return stats;
}

static inline struct kv_recovery_info recovery_of(kv_store *store) {
    struct kv_recovery_info info;
    OK(kv_recovery_info(store, &info, sizeof info));
    return info;
}

/* --- Keys and values ---------------------------------------------------------------------- */

static inline const uint8_t *bytes(const char *text) {
    return (const uint8_t *)text;
}

static inline int32_t set_text(kv_store *store, const char *key, const char *value) {
    return kv_set(store, bytes(key), strlen(key), bytes(value), strlen(value));
}

static inline int32_t del_text(kv_store *store, const char *key) {
    return kv_del(store, bytes(key), strlen(key));
}

/* What a reader of `key` must find: exactly `value`, or nothing if `value` is NULL, by every way there is. */
static inline void check_bytes(const char *file, int line, kv_store *store, const uint8_t *key, size_t key_len,
                               const uint8_t *value, size_t value_len) {
    uint8_t *found = (uint8_t *)&found;
    size_t found_len = 12345;
    int32_t expected = value ? KV_OK : KV_NOT_FOUND;
    check_status(file, line, "kv_get", kv_get(store, key, key_len, &found, &found_len), expected);
    check_status(file, line, "kv_exists", kv_exists(store, key, key_len), expected);
    if (!value) {
        if (found || found_len) fail(file, line, "kv_get does not clear its results when there is nothing");
        return;
    }
    if (!found) fail(file, line, "kv_get found something and returned NULL");
    if (found_len != value_len) fail(file, line, "kv_get returned a value of another length");
    if (memcmp(found, value, value_len) != 0) fail(file, line, "kv_get returned other bytes");
    kv_free_buf(found);
}

#define HAS_BYTES(store, key, key_len, value, value_len)                                           \
    check_bytes(__FILE__, __LINE__, store, key, key_len, value, value_len)
#define HAS(store, key, value) HAS_BYTES(store, bytes(key), strlen(key), bytes(value), strlen(value))
#define HAS_NOT(store, key) HAS_BYTES(store, bytes(key), strlen(key), NULL, 0)

/* A small generator of numbers that look random and are the same in every run. `*state` must not be 0. */
static inline uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * UINT64_C(0x2545F4914F6CDD1D);
}

/* Bytes that tell one seed from another. */
static inline void fill(uint8_t *data, size_t len, uint64_t seed) {
    uint64_t state = (seed + 1) * UINT64_C(0x9E3779B97F4A7C15);
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t word = next_random(&state);
        memcpy(data + i, &word, 8);
    }
    for (; i < len; i++) data[i] = (uint8_t)next_random(&state);
}

/* Numbered keys, whose values follow from the number and a version. */
static inline size_t numbered_key(uint64_t number, char key[32]) {
    return (size_t)snprintf(key, 32, "key-%08" PRIu64, number);
}

static inline int32_t set_numbered(kv_store *store, uint64_t number, uint64_t version, size_t len) {
    char key[32];
    size_t key_len = numbered_key(number, key);
    uint8_t *value = malloc(len + 1);
    int32_t status;
    CHECK(value != NULL);
    fill(value, len, number * 1000003 + version);
    status = kv_set(store, bytes(key), key_len, value, len);
    free(value);
    return status;
}

static inline int32_t del_numbered(kv_store *store, uint64_t number) {
    char key[32];
    size_t key_len = numbered_key(number, key);
    return kv_del(store, bytes(key), key_len);
}

static inline void check_numbered(const char *file, int line, kv_store *store, uint64_t number, uint64_t version,
                                  size_t len) {
    char key[32];
    size_t key_len = numbered_key(number, key);
    uint8_t *value = malloc(len + 1);
    CHECK(value != NULL);
    fill(value, len, number * 1000003 + version);
    check_bytes(file, line, store, bytes(key), key_len, value, len);
    free(value);
}

#define HAS_NUMBERED(store, number, version, len) check_numbered(__FILE__, __LINE__, store, number, version, len)

static inline void check_not_numbered(const char *file, int line, kv_store *store, uint64_t number) {
    char key[32];
    size_t key_len = numbered_key(number, key);
    check_bytes(file, line, store, bytes(key), key_len, NULL, 0);
}

#define HAS_NOT_NUMBERED(store, number) check_not_numbered(__FILE__, __LINE__, store, number)

#endif
