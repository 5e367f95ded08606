/*
 * No space: an error code, nothing half done, and everything works again once there is space, without reopening.
 * A file size limit can be set anywhere; a small disk takes the right to mount one.
 */
#ifdef __linux__
#define _GNU_SOURCE
#include <sched.h>
#include <sys/mount.h>
#endif

#include "files.h"

#include <sys/resource.h>

static void limit_file_size(rlim_t limit) {
    struct rlimit now;
    CHECK(getrlimit(RLIMIT_FSIZE, &now) == 0);
    now.rlim_cur = limit;
    CHECK(setrlimit(RLIMIT_FSIZE, &now) == 0);
}

/* Beyond the limit the kernel would kill the process by SIGXFSZ; the store must not let it come to that. */
static void file_size_limit(const char *path) {
    kv_store *store = open_store(path);
    for (int i = 0; i < 50; i++) OK(set_numbered(store, i, 1, 1000));
    limit_file_size(1 << 20);
    STATUS(set_numbered(store, 100, 1, 24 << 20), KV_ERR_NO_SPACE);
    HAS_NOT_NUMBERED(store, 100);
    STATUS(set_numbered(store, 7, 2, 24 << 20), KV_ERR_NO_SPACE);
    HAS_NUMBERED(store, 7, 1, 1000);
    for (int i = 0; i < 50; i++) HAS_NUMBERED(store, i, 1, 1000);
    OK(del_numbered(store, 3));
    limit_file_size(RLIM_INFINITY);
    OK(set_numbered(store, 100, 1, 24 << 20));
    OK(set_numbered(store, 7, 2, 24 << 20));
    OK(kv_close(store));
    store = open_store(path);
    for (int i = 0; i < 50; i++) {
        if (i != 3 && i != 7) HAS_NUMBERED(store, i, 1, 1000);
    }
    HAS_NOT_NUMBERED(store, 3);
    HAS_NUMBERED(store, 7, 2, 24 << 20);
    HAS_NUMBERED(store, 100, 1, 24 << 20);
    OK(kv_close(store));
}

/* A limit under which not even a new database fits is an error too, and not the end. */
static void file_size_limit_at_open(const char *path) {
    kv_store *store;
    int32_t status;
    limit_file_size(10);
    status = try_open(path, NULL, &store);
    limit_file_size(RLIM_INFINITY);
    STATUS(status, KV_ERR_NO_SPACE);
    CHECK(store == NULL);
    store = open_store(path);
    OK(set_text(store, "k", "v"));
    OK(kv_close(store));
}

#ifdef __linux__
enum { LEN = 4000, DISK = 8 << 20, BALLAST = 2 << 20 };

/* Makes `path` a disk of its own that only this process sees, or returns false. */
static bool mount_small_disk(const char *path) {
    char size[32];
    CHECK(mkdir(path, 0777) == 0);
    snprintf(size, sizeof size, "size=%d", DISK);
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", "", MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", path, "tmpfs", 0, size) == 0;
}

static void take_space(const char *ballast) {
    uint8_t *data = malloc(BALLAST);
    CHECK(data != NULL);
    memset(data, 'x', BALLAST);
    write_file(ballast, data, BALLAST);
    free(data);
}

/* Sets keys from `first` on until there is no space; returns the first that could not be set. */
static uint64_t fill_up(kv_store *store, uint64_t first) {
    uint64_t i = first;
    int32_t status;
    while ((status = set_numbered(store, i, 1, LEN)) == KV_OK) i++;
    STATUS(status, KV_ERR_NO_SPACE);
    return i;
}

static void check_range(kv_store *store, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) HAS_NUMBERED(store, i, 1, LEN);
}

/* Of a full disk, one part in `keep` is kept and the rest deleted. */
static void full_disk(const char *disk, const char *what, uint64_t keep, const struct setting *settings) {
    const char *path = path_in(disk, "db"), *ballast = path_in(disk, "ballast");
    kv_store *store;
    uint64_t end, end_again, kept;
    DOING("%s", what);
    take_space(ballast);
    store = open_with(path, settings);
    end = fill_up(store, 0);
    /* Most of what there was could be used. */
    COMPARE(end * LEN, >, (DISK - BALLAST) / 2);

    /* What failed has changed nothing, as often as it may be tried. */
    for (int i = 0; i < 20; i++) {
        STATUS(set_numbered(store, end + i, 1, LEN), KV_ERR_NO_SPACE);
        HAS_NOT_NUMBERED(store, end + i);
        STATUS(set_numbered(store, i, 2, LEN), KV_ERR_NO_SPACE);
    }
    check_range(store, 0, end);
    COMPARE(stats_of(store).keys, ==, end);

    /* Space comes back from outside. */
    CHECK(unlink(ballast) == 0);
    end_again = fill_up(store, end);
    COMPARE((end_again - end) * LEN, >, BALLAST / 2);
    check_range(store, 0, end_again);

    /* Space comes back by deleting. */
    kept = end_again - end_again / keep;
    for (uint64_t i = 0; i < kept; i++) {
        DOING("%s: delete number %" PRIu64 " of %" PRIu64 " on a full disk", what, i, end_again);
        OK(del_numbered(store, i));
    }
    for (uint64_t i = 0; i < kept; i++) HAS_NOT_NUMBERED(store, i);
    check_range(store, kept, end_again);
    {
        int32_t status = kv_compact(store);
        CHECK(status == KV_OK || status == KV_ERR_NO_SPACE);
    }
    end = fill_up(store, end_again);
    COMPARE((end - end_again) * LEN, >, DISK / 4);
    check_range(store, kept, end);

    /* Closing and opening on a full disk. */
    {
        int32_t status = kv_close(store);
        CHECK(status == KV_OK || status == KV_ERR_NO_SPACE);
    }
    store = open_with(path, WITH({KV_OPT_READ_ONLY, 1}));
    check_range(store, kept, end);
    OK(kv_close(store));
    store = open_with(path, settings);
    check_range(store, kept, end);
    for (uint64_t i = 0; i < kept; i++) HAS_NOT_NUMBERED(store, i);
    for (uint64_t i = kept; i < end; i++) {
        DOING("%s: delete number %" PRIu64 " of %" PRIu64 " after reopening on a full disk", what, i, end);
        OK(del_numbered(store, i));
    }
    DOING("%s: the end", what);
    OK(kv_compact(store));
    OK(set_numbered(store, 1, 2, LEN));
    HAS_NUMBERED(store, 1, 2, LEN);
    OK(kv_close(store));
    remove_dir(path);
}
#endif

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    signal(SIGXFSZ, SIG_DFL);
    file_size_limit(path_in(dir, "limited"));
    file_size_limit_at_open(path_in(dir, "limited-at-open"));
#ifdef __linux__
    {
        const char *disk = path_in(dir, "disk");
        if (!mount_small_disk(disk)) skip("the file size limit is tested; a small disk cannot be mounted here");
        full_disk(disk, "default", 4, WITH({KV_OPT_SEGMENT_SIZE, 1 << 20}));
        full_disk(disk, "system calls", 4, WITH({KV_OPT_SEGMENT_SIZE, 1 << 20}, {KV_OPT_IO, KV_IO_SYSCALL}));
        full_disk(disk, "no thread", 4, WITH({KV_OPT_SEGMENT_SIZE, 1 << 20}, {KV_OPT_BACKGROUND, 0}));
        /* One segment only: what is kept must fit into what the store has set aside. */
        full_disk(disk, "one segment", 40, WITH({KV_OPT_SEGMENT_SIZE, 64 << 20}));
        CHECK(umount(disk) == 0);
    }
#else
    skip("the file size limit is tested; a small disk cannot be mounted here");
#endif
    return 0;
}
