/*
 * Each call to the system fails in turn, once or from then on, as a full, broken or busy system would have it: the store
 * gives a code, keeps what it has acknowledged, and works again when the system does. After a failed sync it takes no
 * more writes until it is opened again.
 *
 * The functions of libc that the library calls are defined here and so take the place of libc's, in the library, too.
 */
#include "check.h"

#ifndef __linux__
int main(void) {
    skip("takes the system calls of Linux");
    return 0;
}
#else

#include <sys/mman.h>
#include <sys/syscall.h>

/* The first call that is to fail, counted from 1; 0 if none is. */
static uint64_t failing;
static bool goes_on;
static int error;
static uint64_t calls;
/* Only this thread's calls fail, of those to the directory of the database. */
static __thread bool armed;

static bool fails(void) {
    uint64_t call;
    if (!armed) return false;
    call = ++calls;
    if (failing == 0 || call < failing || (call > failing && !goes_on)) return false;
    errno = error;
    return true;
}

/* Half of the reads and writes are short, if that is asked for. */
static bool short_io;
static size_t shortened(size_t len) {
    static uint64_t random = 1;
    return armed && short_io && len > 1 && next_random(&random) % 2 ? 1 + next_random(&random) % (len - 1) : len;
}

#define CALL(name, ...) (fails() ? -1 : syscall(SYS_##name, __VA_ARGS__))

ssize_t pread64(int fd, void *buf, size_t len, off64_t offset) { return CALL(pread64, fd, buf, shortened(len), offset); }
ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t offset) { return CALL(pwrite64, fd, buf, shortened(len), offset); }
int ftruncate64(int fd, off64_t len) { return (int)CALL(ftruncate, fd, len); }
int fallocate(int fd, int mode, off_t offset, off_t len) { return (int)CALL(fallocate, fd, mode, offset, len); }
int fsync(int fd) { return (int)CALL(fsync, fd); }
int fdatasync(int fd) { return (int)CALL(fdatasync, fd); }
int renameat(int from_dir, const char *from, int to_dir, const char *to) { return (int)CALL(renameat2, from_dir, from, to_dir, to, 0); }
int unlinkat(int dir, const char *name, int flags) { return (int)CALL(unlinkat, dir, name, flags); }
int flock(int fd, int operation) { return (int)CALL(flock, fd, operation); }
ssize_t getrandom(void *buf, size_t len, unsigned flags) { return CALL(getrandom, buf, len, flags); }
int openat(int dir, const char *name, int flags, ...) {
    va_list more;
    mode_t mode;
    va_start(more, flags);
    mode = va_arg(more, mode_t);
    va_end(more);
    return (int)CALL(openat, dir, name, flags, mode);
}

enum { KEYS = 40 };
/* The version that each key has; 0 if it is not stored. */
static uint64_t model[KEYS];

static size_t length(uint64_t version) {
    return 50 + version % 7 * 90;
}

/* A code that a failing system may give. */
static void check_code(int32_t status) {
    if (status != KV_ERR_IO && status != KV_ERR_NO_SPACE && status != KV_ERR_NO_MEMORY && status != KV_ERR_POISONED) OK(status);
}

static void check_all(kv_store *store) {
    for (uint64_t key = 0; key < KEYS; key++) {
        if (model[key]) {
            HAS_NUMBERED(store, key, model[key], length(model[key]));
        } else {
            HAS_NOT_NUMBERED(store, key);
        }
    }
}

/* Works for a while, whatever fails. True if a sync has failed. */
static bool work(kv_store *store) {
    bool poisoned = false;
    for (uint64_t i = 0; i < 60; i++) {
        uint64_t key = i * 7 % KEYS;
        int32_t status = i % 5 == 3 ? del_numbered(store, key) : set_numbered(store, key, i + 1, length(i + 1));
        if (status == KV_OK) {
            CHECK(!poisoned);
            model[key] = i % 5 == 3 ? 0 : i + 1;
        } else if (status != KV_NOT_FOUND) {
            check_code(status);
        }
        poisoned |= status == KV_ERR_POISONED;
        if (i % 20 == 10 || i % 20 == 15) {
            status = i % 20 == 10 ? kv_sync(store) : kv_compact(store);
            CHECK(status != KV_OK || !poisoned);
            check_code(status);
            poisoned |= status == KV_ERR_POISONED;
        }
    }
    return poisoned;
}

/* Returns the number of calls, or 0 if the failing one was not reached. */
static uint64_t run(const char *path, uint64_t io, uint64_t at) {
    const struct setting *settings = WITH({KV_OPT_IO, io}, {KV_OPT_BACKGROUND, 0}, {KV_OPT_SEGMENT_SIZE, 4096}, {KV_OPT_COMPACT_THRESHOLD, 4096});
    kv_store *store;
    int32_t status;
    bool poisoned;
    memset(model, 0, sizeof model);
    calls = 0;
    failing = at;
    armed = true;
    status = try_open(path, settings, &store);
    if (status != KV_OK) {
        check_code(status);
        CHECK(store == NULL);
        armed = false;
        store = open_with(path, settings);
        armed = true;
    }
    poisoned = work(store);
    armed = false;
    /* The fault is over. */
    check_all(store);
    status = set_numbered(store, 0, 1000, length(1000));
    if (poisoned) {
        STATUS(status, KV_ERR_POISONED);
    } else if (status != KV_ERR_POISONED) {
        /* Syncs of the upkeep inside of a write fail unseen, so it may be poisoned all the same. */
        OK(status);
        model[0] = 1000;
    }
    armed = true;
    check_code(kv_close(store));
    armed = false;
    store = open_with(path, settings);
    /* Nobody has died, so what was acknowledged is there even where a sync has failed. */
    check_all(store);
    COMPARE(recovery_of(store).damaged_records, ==, 0);
    OK(set_numbered(store, 1, 2000, length(2000)));
    model[1] = 2000;
    OK(kv_compact(store));
    OK(kv_close(store));
    store = open_with(path, settings);
    check_all(store);
    OK(kv_close(store));
    return calls >= at ? calls : 0;
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    static const int errors[] = {EIO, ENOSPC, EDQUOT, EINTR, EMFILE, ENOMEM};
    static const uint64_t paths[] = {KV_IO_AUTO, KV_IO_SYSCALL};
    uint64_t tried = 0, step = quick() ? 41 : 3;
    for (size_t io = 0; io < 2; io++) {
        for (int persistent = 0; persistent < 2; persistent++) {
            for (uint64_t at = 1 + (uint64_t)persistent; ; at += step) {
                char name[64];
                uint64_t reached;
                snprintf(name, sizeof name, "%zu-%d-%" PRIu64, io, persistent, at);
                error = errors[tried++ % 6];
                /* A call that is interrupted for ever would be tried for ever. */
                if (persistent && error == EINTR) error = EIO;
                goes_on = persistent;
                DOING("call %" PRIu64 " fails with %s%s, I/O %d", at, strerror(error), persistent ? " and so do all others" : "", (int)paths[io]);
                reached = run(path_in(dir, name), paths[io], at);
                if (!reached) break;
            }
        }
        short_io = true;
        DOING("short reads and writes, I/O %d", (int)paths[io]);
        CHECK(run(path_in(dir, io ? "short-1" : "short-0"), paths[io], 0) > 0);
        short_io = false;
    }
    CHECK(tried > 20);
    printf("%" PRIu64 " failing calls tried\n", tried);
    return 0;
}
#endif
