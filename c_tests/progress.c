/*
 * Progress of long work: what the callback is told, that it may use the store, and that it can stop the work.
 */
#include "files.h"

enum { KEYS = 500 };

struct watch {
    kv_store *store;
    pthread_t thread;
    uint64_t calls, done, total;
    /* The call of this number cancels; 0: none. */
    uint64_t cancel_at;
    /* The callback writes, reads, and compacts. */
    bool use_store;
};

static int32_t on_progress(void *ctx, uint64_t done, uint64_t total) {
    struct watch *watch = ctx;
    watch->calls++;
    CHECK(pthread_equal(pthread_self(), watch->thread));
    if (watch->calls == 1) {
        watch->total = total;
        CHECK(done == 0);
    } else {
        CHECK(watch->done < watch->total);
    }
    COMPARE(total, ==, watch->total);
    COMPARE(done, >=, watch->done);
    COMPARE(done, <=, total);
    watch->done = done;
    if (watch->use_store) {
        OK(set_numbered(watch->store, KEYS + watch->calls, watch->calls, 100));
        HAS_NUMBERED(watch->store, KEYS + watch->calls, watch->calls, 100);
        OK(kv_sync(watch->store));
        if (watch->calls == 3) OK(kv_compact(watch->store));
        STATUS(kv_get_into(watch->store, NULL, 1, NULL, 0, NULL), KV_ERR_INVALID);
    }
    return watch->calls == watch->cancel_at ? -1 : 0;
}

static struct watch watch_of(kv_store *store) {
    struct watch watch;
    memset(&watch, 0, sizeof watch);
    watch.store = store;
    watch.thread = pthread_self();
    return watch;
}

/* A store with garbage in many segments. */
static kv_store *store_with_garbage(const char *path, uint64_t background) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 32 << 10}, {KV_OPT_COMPACT_THRESHOLD, 1 << 30},
                                           {KV_OPT_BACKGROUND, background}));
    for (uint64_t version = 1; version <= 3; version++) {
        for (uint64_t key = 0; key < KEYS; key++) OK(set_numbered(store, key, version, 1000));
    }
    return store;
}

static void check(kv_store *store) {
    for (uint64_t key = 0; key < KEYS; key++) HAS_NUMBERED(store, key, 3, 1000);
}

static void told_from_start_to_end(const char *path, uint64_t background) {
    kv_store *store = store_with_garbage(path, background);
    uint64_t log_bytes = stats_of(store).log_bytes;
    struct watch watch = watch_of(store);
    OK(kv_compact_with(store, on_progress, &watch));
    COMPARE(watch.calls, >, 5);
    COMPARE(watch.done, ==, watch.total);
    COMPARE(watch.total, >, log_bytes / 2);
    COMPARE(watch.total, <=, log_bytes);
    COMPARE(stats_of(store).dead_bytes, ==, 0);
    watch = watch_of(store);
    OK(kv_compact_with(store, on_progress, &watch));
    COMPARE(watch.calls, ==, 1);
    COMPARE(watch.total, ==, 0);
    OK(kv_compact_with(store, NULL, NULL));
    check(store);
    OK(kv_close(store));
}

static void the_callback_uses_the_store(const char *path, uint64_t background) {
    kv_store *store = store_with_garbage(path, background);
    struct watch watch = watch_of(store);
    watch.use_store = true;
    OK(kv_compact_with(store, on_progress, &watch));
    COMPARE(watch.done, ==, watch.total);
    check(store);
    OK(kv_close(store));
}

static void cancelled_at_every_call(const char *path, uint64_t background) {
    char message[200];
    for (uint64_t at = 1;; at = at < 4 ? at + 1 : at * 3) {
        kv_store *store = store_with_garbage(path, background);
        struct watch watch = watch_of(store);
        int32_t status;
        watch.cancel_at = at;
        status = kv_compact_with(store, on_progress, &watch);
        COMPARE(watch.calls, <=, at);
        check(store);
        if (status == KV_ERR_CANCELLED) {
            CHECK(kv_last_error(message, sizeof message) > 0 && strstr(message, "callback") != NULL);
            COMPARE(watch.calls, ==, at);
            COMPARE(watch.done, <, watch.total);
            if (at % 2) OK(kv_compact(store));
        }
        if (status != KV_ERR_CANCELLED || at % 2) COMPARE(stats_of(store).dead_bytes, ==, 0);
        OK(kv_close(store));
        store = open_store(path);
        check(store);
        OK(kv_close(store));
        remove_dir(path);
        if (status == KV_ERR_CANCELLED) continue;
        STATUS(status, KV_OK);
        COMPARE(at, >, 4);
        return;
    }
}

static void refused(const char *path) {
    kv_store *store = store_with_garbage(path, 1);
    struct watch watch = watch_of(store);
    OK(kv_close(store));
    STATUS(kv_compact_with(NULL, on_progress, &watch), KV_ERR_INVALID);
    store = open_with(path, WITH({KV_OPT_READ_ONLY, 1}));
    STATUS(kv_compact_with(store, on_progress, &watch), KV_ERR_READ_ONLY);
    COMPARE(watch.calls, ==, 0);
    OK(kv_close(store));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    for (uint64_t background = 0; background < 2; background++) {
        told_from_start_to_end(path_in(dir, background ? "told" : "told-inline"), background);
        the_callback_uses_the_store(path_in(dir, background ? "used" : "used-inline"), background);
        cancelled_at_every_call(path_in(dir, "cancelled"), background);
    }
    refused(path_in(dir, "refused"));
    return 0;
}
