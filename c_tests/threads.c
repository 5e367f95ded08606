/*
 * Eight threads on one handle while others compact and sync: every value that is read is one that was written, the newest
 * for those who can know it, and nothing ever goes backwards.
 */
#include "check.h"

enum { THREADS = 8, OWN_KEYS = 64, SHARED_KEYS = 32 };

struct shared {
    kv_store *store;
    volatile bool stop;
};

struct worker {
    struct shared *shared;
    uint64_t number, versions[OWN_KEYS], seen[SHARED_KEYS], done;
};

/* Keys that one thread writes: it knows exactly what must be there. */
static void own_key(struct worker *worker, uint64_t *random) {
    uint64_t i = next_random(random) % OWN_KEYS, what = next_random(random) % 10;
    uint64_t key = worker->number * 1000 + i, version = worker->versions[i];
    kv_store *store = worker->shared->store;
    if (what < 4) {
        worker->versions[i] = ++worker->done;
        OK(set_numbered(store, key, worker->done, worker->done % 500));
    } else if (what < 5) {
        STATUS(del_numbered(store, key), version ? KV_OK : KV_NOT_FOUND);
        worker->versions[i] = 0;
    } else if (version) {
        HAS_NUMBERED(store, key, version, version % 500);
    } else {
        HAS_NOT_NUMBERED(store, key);
    }
}

/* The value of a shared key: who wrote it, for which key, which version, and bytes that follow from these. */
struct stamp {
    uint64_t key, version;
};

static void write_shared(kv_store *store, uint64_t key, uint64_t version) {
    uint8_t value[1000];
    char name[32];
    size_t len = sizeof(struct stamp) + version * 13 % 900, name_len = (size_t)snprintf(name, sizeof name, "shared-%d", (int)key);
    struct stamp stamp = {key, version};
    memcpy(value, &stamp, sizeof stamp);
    fill(value + sizeof stamp, len - sizeof stamp, key * 31 + version);
    OK(kv_set(store, bytes(name), name_len, value, len));
}

/* Returns the version. */
static uint64_t read_shared(kv_store *store, uint64_t key) {
    uint8_t value[1000], expected[1000];
    char name[32];
    size_t len, name_len = (size_t)snprintf(name, sizeof name, "shared-%d", (int)key);
    struct stamp stamp;
    OK(kv_get_into(store, bytes(name), name_len, value, sizeof value, &len));
    memcpy(&stamp, value, sizeof stamp);
    COMPARE(stamp.key, ==, key);
    COMPARE(len, ==, sizeof stamp + stamp.version * 13 % 900);
    fill(expected, len - sizeof stamp, key * 31 + stamp.version);
    CHECK(memcmp(value + sizeof stamp, expected, len - sizeof stamp) == 0);
    return stamp.version;
}

/* Keys that all threads read and one writes: what a reader sees never goes backwards. */
static void shared_key(struct worker *worker, uint64_t *random) {
    uint64_t key = next_random(random) % SHARED_KEYS;
    if (key % THREADS == worker->number) {
        write_shared(worker->shared->store, key, ++worker->seen[key]);
    } else {
        uint64_t version = read_shared(worker->shared->store, key);
        COMPARE(version, >=, worker->seen[key]);
        worker->seen[key] = version;
    }
}

static void *work(void *argument) {
    struct worker *worker = argument;
    uint64_t random = worker->number + 99;
    while (!worker->shared->stop) {
        own_key(worker, &random);
        shared_key(worker, &random);
    }
    return NULL;
}

static void *compact(void *argument) {
    struct shared *shared = argument;
    while (!shared->stop) {
        OK(kv_compact(shared->store));
        OK(kv_sync(shared->store));
        CHECK(kv_maintain(shared->store, 10000) >= 0);
        (void)stats_of(shared->store);
    }
    return NULL;
}

static void check_all(kv_store *store, struct worker *workers) {
    for (uint64_t number = 0; number < THREADS; number++) {
        for (uint64_t i = 0; i < OWN_KEYS; i++) {
            uint64_t version = workers[number].versions[i];
            if (version) {
                HAS_NUMBERED(store, number * 1000 + i, version, version % 500);
            } else {
                HAS_NOT_NUMBERED(store, number * 1000 + i);
            }
        }
    }
    for (uint64_t key = 0; key < SHARED_KEYS; key++) {
        COMPARE(read_shared(store, key), ==, workers[key % THREADS].seen[key]);
    }
}

static void mixed_work(const char *path, const struct setting *settings, unsigned ms) {
    static struct worker workers[THREADS];
    pthread_t threads[THREADS], compactor;
    struct shared shared = {open_with(path, settings), false};
    memset(workers, 0, sizeof workers);
    DOING("%s", path);
    for (uint64_t key = 0; key < SHARED_KEYS; key++) write_shared(shared.store, key, 0);
    for (int i = 0; i < THREADS; i++) {
        workers[i].shared = &shared;
        workers[i].number = (uint64_t)i;
        CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
    }
    CHECK(pthread_create(&compactor, NULL, compact, &shared) == 0);
    sleep_ms(ms);
    shared.stop = true;
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(pthread_join(compactor, NULL) == 0);
    check_all(shared.store, workers);
    OK(kv_close(shared.store));
    shared.store = open_store(path);
    check_all(shared.store, workers);
    OK(kv_compact(shared.store));
    check_all(shared.store, workers);
    OK(kv_close(shared.store));
}

/* Threads that set and delete the same keys agree on one order, the same before and after reopening. */
static void *race(void *argument) {
    kv_store *store = argument;
    uint64_t random = (uint64_t)(uintptr_t)&random | 1;
    for (int i = 0; i < (quick() ? 200 : 5000); i++) {
        uint64_t key = next_random(&random) % 20;
        int32_t status = next_random(&random) % 3 ? set_numbered(store, key, next_random(&random), 50) : del_numbered(store, key);
        CHECK(status == KV_OK || status == KV_NOT_FOUND);
    }
    return NULL;
}

static void one_order(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 65536}, {KV_OPT_COMPACT_THRESHOLD, 0}));
    pthread_t threads[THREADS];
    uint8_t before[20][50], after[50];
    size_t len_before[20], len_after;
    char key[32];
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, race, store) == 0);
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < 20; i++) (void)kv_get_into(store, bytes(key), numbered_key(i, key), before[i], 50, &len_before[i]);
    OK(kv_close(store));
    store = open_store(path);
    for (int i = 0; i < 20; i++) {
        (void)kv_get_into(store, bytes(key), numbered_key(i, key), after, 50, &len_after);
        CHECK(len_before[i] == len_after && memcmp(before[i], after, len_after) == 0);
    }
    OK(kv_close(store));
}

/* kv_free_buf and the end of a thread have nothing to do with which thread made what. */
static void *use_and_end(void *argument) {
    uint8_t *value;
    size_t len;
    OK(kv_get(argument, bytes("k"), 1, &value, &len));
    return value;
}

static void threads_come_and_go(const char *path) {
    kv_store *store = open_store(path);
    OK(set_text(store, "k", "v"));
    for (int i = 0; i < (quick() ? 20 : 300); i++) {
        pthread_t thread;
        void *value;
        CHECK(pthread_create(&thread, NULL, use_and_end, store) == 0);
        CHECK(pthread_join(thread, &value) == 0);
        CHECK(*(uint8_t *)value == 'v');
        kv_free_buf(value);
    }
    OK(kv_close(store));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    unsigned ms = quick() ? 300 : 500;
    mixed_work(path_in(dir, "small"), WITH({KV_OPT_SEGMENT_SIZE, 256 << 10}, {KV_OPT_COMPACT_THRESHOLD, 0}), ms);
    mixed_work(path_in(dir, "default"), NULL, ms);
    mixed_work(path_in(dir, "inline"), WITH({KV_OPT_BACKGROUND, 0}, {KV_OPT_SEGMENT_SIZE, 1 << 20}), ms);
    if (!quick()) mixed_work(path_in(dir, "syscall"), WITH({KV_OPT_IO, KV_IO_SYSCALL}, {KV_OPT_SEGMENT_SIZE, 1 << 20}), ms);
    mixed_work(path_in(dir, "always"), WITH({KV_OPT_SYNC, KV_SYNC_ALWAYS}), ms);
    one_order(path_in(dir, "order"));
    threads_come_and_go(path_in(dir, "come-and-go"));
    return 0;
}
