/*
 * The limits that a system puts on a process, on descriptors and on memory: a code, nothing lost, and everything works
 * again once there is room.
 */
#include "files.h"

#include <sys/resource.h>

enum { KEYS = 30, LEN = 700, LARGE = 48 << 20 };

static void limit(int what, rlim_t to) {
    struct rlimit now;
    CHECK(getrlimit(what, &now) == 0);
    now.rlim_cur = to < now.rlim_max ? to : now.rlim_max;
    CHECK(setrlimit(what, &now) == 0);
}

static rlim_t soft_limit(int what) {
    struct rlimit now;
    CHECK(getrlimit(what, &now) == 0);
    return now.rlim_cur;
}

/* The least number that no descriptor has. */
static rlim_t next_descriptor(void) {
    int fd = open("/", O_RDONLY);
    CHECK(fd >= 0 && close(fd) == 0);
    return (rlim_t)fd;
}

/* With room for so many descriptors more. */
static void few_descriptors(const char *path, uint64_t io, rlim_t room) {
    const struct setting *settings = WITH({KV_OPT_IO, io}, {KV_OPT_BACKGROUND, 0}, {KV_OPT_SEGMENT_SIZE, 4096}, {KV_OPT_COMPACT_THRESHOLD, 0});
    rlim_t before = soft_limit(RLIMIT_NOFILE);
    uint64_t model[KEYS] = {0};
    kv_store *store;
    int32_t status;
    DOING("room for %d descriptors, I/O %d", (int)room, (int)io);
    store = open_with(path, settings);
    limit(RLIMIT_NOFILE, next_descriptor() + room);
    for (uint64_t i = 0; i < 300; i++) {
        status = set_numbered(store, i % KEYS, i + 1, LEN);
        if (status == KV_OK) model[i % KEYS] = i + 1;
        CHECK(status == KV_OK || status == KV_ERR_IO);
        if (i % 50 == 49) {
            status = kv_compact(store);
            CHECK(status == KV_OK || status == KV_ERR_IO);
        }
    }
    limit(RLIMIT_NOFILE, before);
    for (uint64_t i = 0; i < KEYS; i++) {
        if (model[i]) HAS_NUMBERED(store, i, model[i], LEN);
        if (!model[i]) HAS_NOT_NUMBERED(store, i);
    }
    OK(set_numbered(store, 0, 1000, LEN));
    model[0] = 1000;
    OK(kv_compact(store));
    OK(kv_close(store));

    limit(RLIMIT_NOFILE, next_descriptor() + room);
    status = try_open(path, settings, &store);
    limit(RLIMIT_NOFILE, before);
    if (status == KV_OK) {
        OK(kv_close(store));
    } else {
        STATUS(status, KV_ERR_IO);
    }
    store = open_with(path, settings);
    CHECK(recovery_of(store).clean);
    for (uint64_t i = 0; i < KEYS; i++) {
        if (model[i]) HAS_NUMBERED(store, i, model[i], LEN);
        if (!model[i]) HAS_NOT_NUMBERED(store, i);
    }
    OK(kv_close(store));
}

#ifdef __linux__
static rlim_t address_space(void) {
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%lu", &pages) == 1 && fclose(file) == 0);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

/* A value that the caller has stored, but cannot get now. */
static void little_memory(const char *path, uint64_t io) {
    const struct setting *settings = WITH({KV_OPT_IO, io}, {KV_OPT_BACKGROUND, 0});
    rlim_t before = soft_limit(RLIMIT_AS);
    uint8_t *data = malloc(LARGE), *value;
    size_t len;
    int32_t status;
    kv_store *store = open_with(path, settings);
    DOING("little memory, I/O %d", (int)io);
    CHECK(data != NULL);
    fill(data, LARGE, 1);
    OK(kv_set(store, bytes("large"), 5, data, LARGE));
    OK(set_text(store, "small", "value"));
    limit(RLIMIT_AS, address_space() + (8 << 20));
    STATUS(kv_get(store, bytes("large"), 5, &value, &len), KV_ERR_NO_MEMORY);
    CHECK(value == NULL && len == 0);
    /* Its segment has to be a larger one than can be mapped now. */
    status = kv_set(store, bytes("second"), 6, data, LARGE);
    CHECK(status == KV_OK || status == KV_ERR_NO_MEMORY);
    OK(set_text(store, "small", "changed"));
    limit(RLIMIT_AS, before);
    OK(kv_get(store, bytes("large"), 5, &value, &len));
    CHECK(len == LARGE && memcmp(value, data, LARGE) == 0);
    kv_free_buf(value);
    if (status == KV_OK) {
        OK(kv_get(store, bytes("second"), 6, &value, &len));
        CHECK(len == LARGE && memcmp(value, data, LARGE) == 0);
        kv_free_buf(value);
    } else {
        STATUS(kv_exists(store, bytes("second"), 6), KV_NOT_FOUND);
    }
    OK(kv_close(store));

    limit(RLIMIT_AS, address_space() + (2 << 20));
    status = try_open(path, settings, &store);
    if (status == KV_OK) {
        OK(kv_close(store));
    } else {
        STATUS(status, KV_ERR_NO_MEMORY);
        CHECK(store == NULL);
    }
    limit(RLIMIT_AS, before);
    store = open_with(path, settings);
    CHECK(recovery_of(store).clean);
    OK(kv_get(store, bytes("small"), 5, &value, &len));
    CHECK(len == 7 && memcmp(value, "changed", 7) == 0);
    kv_free_buf(value);
    OK(kv_close(store));
    free(data);
}
#endif

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    static const uint64_t paths[] = {KV_IO_AUTO, KV_IO_SYSCALL};
    for (size_t i = 0; i < 2; i++) {
        for (rlim_t room = 0; room < 8; room++) {
            char name[32];
            snprintf(name, sizeof name, "few-%zu-%d", i, (int)room);
            few_descriptors(path_in(dir, name), paths[i], room);
        }
    }
#ifdef __linux__
    /* Valgrind and the sanitizers need more address space than they let the program have. */
    if (quick()) return 0;
    little_memory(path_in(dir, "little-auto"), KV_IO_AUTO);
    little_memory(path_in(dir, "little-syscall"), KV_IO_SYSCALL);
#endif
    return 0;
}
