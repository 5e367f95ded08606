/*
 * What the program around the library must not notice: no output, no change of errno, of signal handling, of the
 * working directory or the file mode mask, and no signal delivered to a thread of the library's own.
 */
#include "files.h"

#define ERRNO_STAYS(call)                                                                          \
    do {                                                                                           \
        errno = 4711;                                                                              \
        (void)(call);                                                                              \
        CHECK(errno == 4711);                                                                      \
    } while (0)

static void errno_stays(const char *dir) {
    kv_store *store = NULL, *second = NULL;
    kv_options *options = NULL;
    uint8_t *value = NULL, buffer[8];
    size_t len;
    char text[8];
    struct kv_stats stats;
    struct kv_recovery_info info;
    ERRNO_STAYS(options = kv_options_new());
    ERRNO_STAYS(kv_options_set(options, KV_OPT_SEGMENT_SIZE, 4096));
    ERRNO_STAYS(kv_options_set(options, -1, 0));
    ERRNO_STAYS(kv_open(path_in(dir, "no/such"), options, &store));
    ERRNO_STAYS(kv_open(path_in(dir, "errno"), options, &store));
    CHECK(store != NULL);
    ERRNO_STAYS(kv_open(path_in(dir, "errno"), options, &second));
    ERRNO_STAYS(kv_options_free(options));
    for (int i = 0; i < 50; i++) ERRNO_STAYS(set_numbered(store, i % 5, i, 500));
    ERRNO_STAYS(kv_get(store, bytes("key-00000001"), 12, &value, &len));
    ERRNO_STAYS(kv_free_buf(value));
    ERRNO_STAYS(kv_get_into(store, bytes("key-00000001"), 12, buffer, 8, &len));
    ERRNO_STAYS(kv_exists(store, bytes("none"), 4));
    ERRNO_STAYS(kv_del(store, bytes("key-00000001"), 12));
    ERRNO_STAYS(kv_sync(store));
    ERRNO_STAYS(kv_compact(store));
    ERRNO_STAYS(kv_maintain(store, 1000));
    ERRNO_STAYS(kv_stats(store, &stats, sizeof stats));
    ERRNO_STAYS(kv_recovery_info(store, &info, sizeof info));
    ERRNO_STAYS(kv_last_error(text, sizeof text));
    ERRNO_STAYS(kv_strerror(-5));
    ERRNO_STAYS(kv_version());
    ERRNO_STAYS(kv_close(store));
}

/* Everything that is not a failure, and some of what is. */
static void work(const char *dir) {
    kv_store *store = open_with(path_in(dir, "work"), WITH({KV_OPT_SEGMENT_SIZE, 16384}, {KV_OPT_COMPACT_THRESHOLD, 0}));
    kv_store *second;
    uint8_t *value;
    size_t len;
    for (int i = 0; i < 2000; i++) OK(set_numbered(store, i % 100, i, 100));
    STATUS(try_open(path_in(dir, "work"), NULL, &second), KV_ERR_LOCKED);
    STATUS(kv_get(store, NULL, 7, &value, &len), KV_ERR_INVALID);
    OK(kv_compact(store));
    OK(kv_close(store));
    CHECK(try_open(path_in(dir, "no/such/path"), NULL, &store) < 0);
}

static void nothing_is_printed(const char *dir) {
    const char *path = path_in(dir, "output");
    int out = dup(1), err = dup(2), file = open(path, O_CREAT | O_WRONLY, 0666);
    struct stat info;
    CHECK(out > 2 && err > 2 && file > 2);
    fflush(stdout);
    fflush(stderr);
    CHECK(dup2(file, 1) == 1 && dup2(file, 2) == 2);
    work(dir);
    CHECK(dup2(out, 1) == 1 && dup2(err, 2) == 2);
    CHECK(fstat(file, &info) == 0);
    CHECK(info.st_size == 0);
    close(out);
    close(err);
    close(file);
}

static bool same_action(const struct sigaction *a, const struct sigaction *b) {
    return a->sa_handler == b->sa_handler && a->sa_flags == b->sa_flags;
}

static void process_state_stays(const char *dir) {
    struct sigaction before[32], after;
    sigset_t mask_before, mask_after;
    char directory_before[4096], directory_after[4096];
    mode_t mode_before = umask(022);
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask_before) == 0);
    CHECK(getcwd(directory_before, sizeof directory_before) != NULL);
    for (int signal = 1; signal < 32; signal++) sigaction(signal, NULL, &before[signal]);
    work(dir);
    for (int signal = 1; signal < 32; signal++) {
        if (sigaction(signal, NULL, &after) == 0) CHECK(same_action(&before[signal], &after));
    }
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask_after) == 0);
    for (int signal = 1; signal < 32; signal++) {
        CHECK(sigismember(&mask_before, signal) == sigismember(&mask_after, signal));
    }
    CHECK(getcwd(directory_after, sizeof directory_after) != NULL);
    CHECK(strcmp(directory_before, directory_after) == 0);
    CHECK(umask(mode_before) == 022);
}

static volatile sig_atomic_t delivered;

static void on_signal(int signal) {
    (void)signal;
    delivered = 1;
}

/* A signal sent to the process, blocked by the program's own thread, stays pending: no thread of the library
 * takes it, though it may be working while it arrives. */
static void signals_are_the_hosts(const char *dir) {
    struct sigaction action;
    sigset_t blocked, pending;
    kv_store *store = open_with(path_in(dir, "signals"), WITH({KV_OPT_SYNC, KV_SYNC_INTERVAL}, {KV_OPT_SYNC_INTERVAL_MS, 1},
                                                              {KV_OPT_SEGMENT_SIZE, 16384}, {KV_OPT_COMPACT_THRESHOLD, 0}));
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &blocked, NULL) == 0);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    for (int i = 0; i < 1000; i++) OK(set_numbered(store, i % 50, i, 100));
    sleep_ms(20);
    CHECK(!delivered);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1));
    CHECK(pthread_sigmask(SIG_UNBLOCK, &blocked, NULL) == 0);
    CHECK(delivered);
    OK(kv_close(store));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    errno_stays(dir);
    nothing_is_printed(dir);
    process_state_stays(dir);
    signals_are_the_hosts(dir);
    return 0;
}
