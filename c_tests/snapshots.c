/*
 * Snapshots and iterators: one moment, whatever is written, compacted or freed around them.
 */
#include "check.h"

static void snapshot_has(kv_snapshot *snapshot, const char *key, const char *expected) {
    const uint8_t *value = (const uint8_t *)&value;
    size_t len = 12345;
    STATUS(kv_snapshot_get(snapshot, bytes(key), strlen(key), &value, &len), expected ? KV_OK : KV_NOT_FOUND);
    if (expected) {
        CHECK(value != NULL && len == strlen(expected) && memcmp(value, expected, len) == 0);
    } else {
        CHECK(value == NULL && len == 0);
    }
}

/* Everything an iterator shows, as "key=value;" in a static buffer. */
static const char *show(kv_iter *iter) {
    static char text[4096];
    const uint8_t *key, *value;
    size_t key_len, value_len, used = 0;
    int32_t status;
    text[0] = 0;
    while ((status = kv_iter_next(iter, &key, &key_len, &value, &value_len)) == KV_OK) {
        CHECK(key != NULL);
        used += (size_t)snprintf(text + used, sizeof text - used, "%.*s=%.*s;", (int)key_len, (const char *)key,
                                 (int)value_len, value ? (const char *)value : "");
    }
    STATUS(status, KV_DONE);
    CHECK(key == NULL && key_len == 0 && value == NULL && value_len == 0);
    STATUS(kv_iter_next(iter, &key, &key_len, NULL, NULL), KV_DONE);
    kv_iter_free(iter);
    return text;
}

static kv_iter *sorted(kv_store *store) {
    kv_iter *iter;
    OK(kv_iter_new(store, &iter));
    OK(kv_iter_sort(iter));
    return iter;
}

static void one_moment(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 4096}, {KV_OPT_COMPACT_THRESHOLD, 1}));
    kv_snapshot *snapshot;
    kv_iter *iter;
    const uint8_t *kept;
    size_t kept_len;
    OK(set_text(store, "a", "1"));
    OK(set_text(store, "b", "2"));
    OK(set_text(store, "", "nothing"));
    OK(set_text(store, "e", ""));
    OK(kv_snapshot_new(store, &snapshot));
    COMPARE(stats_of(store).snapshots, ==, 1);
    OK(kv_snapshot_get(snapshot, bytes("a"), 1, &kept, &kept_len));
    OK(set_text(store, "a", "changed"));
    OK(del_text(store, "b"));
    OK(set_text(store, "c", "new"));
    for (uint64_t n = 0; n < 500; n++) OK(set_numbered(store, n % 10, n, 200));
    OK(kv_compact(store));
    COMPARE(stats_of(store).pinned_bytes, >, 0);
    snapshot_has(snapshot, "a", "1");
    snapshot_has(snapshot, "b", "2");
    snapshot_has(snapshot, "", "nothing");
    snapshot_has(snapshot, "e", "");
    snapshot_has(snapshot, "c", NULL);
    CHECK(kept_len == 1 && *kept == '1');
    OK(kv_snapshot_iter(snapshot, &iter));
    OK(kv_iter_sort(iter));
    STATUS(kv_close(store), KV_ERR_BUSY);
    HAS(store, "a", "changed");
    kv_snapshot_free(snapshot);
    COMPARE(stats_of(store).snapshots, ==, 0);
    COMPARE(stats_of(store).iterators, ==, 1);
    STATUS(kv_close(store), KV_ERR_BUSY);
    CHECK(strcmp(show(iter), "=nothing;a=1;b=2;e=;") == 0);
    OK(kv_compact(store));
    COMPARE(stats_of(store).pinned_bytes, ==, 0);
    OK(kv_close(store));
}

static void what_is_shown(const char *path) {
    kv_store *store = open_store(path);
    kv_iter *iter;
    const uint8_t *key, *value;
    size_t key_len, value_len;
    const char *keys[] = {"b", "a", "ab", "abc", "ac", "\xff", "\xff\xff", "b\x01"};
    CHECK(strcmp(show(sorted(store)), "") == 0);
    for (size_t n = 0; n < sizeof keys / sizeof *keys; n++) OK(set_text(store, keys[n], "v"));
    CHECK(strcmp(show(sorted(store)), "a=v;ab=v;abc=v;ac=v;b=v;b\x01=v;\xff=v;\xff\xff=v;") == 0);
    iter = sorted(store);
    OK(kv_iter_prefix(iter, bytes("ab"), 2));
    CHECK(strcmp(show(iter), "ab=v;abc=v;") == 0);
    iter = sorted(store);
    OK(kv_iter_prefix(iter, bytes("\xff"), 1));
    CHECK(strcmp(show(iter), "\xff=v;\xff\xff=v;") == 0);
    iter = sorted(store);
    OK(kv_iter_range(iter, bytes("ab"), 2, bytes("b"), 1));
    CHECK(strcmp(show(iter), "ab=v;abc=v;ac=v;") == 0);
    iter = sorted(store);
    OK(kv_iter_range(iter, bytes("b"), 1, NULL, 0));
    OK(kv_iter_keys_only(iter));
    CHECK(strcmp(show(iter), "b=;b\x01=;\xff=;\xff\xff=;") == 0);
    iter = sorted(store);
    OK(kv_iter_prefix(iter, bytes("a"), 1));
    OK(kv_iter_range(iter, bytes("abc"), 3, bytes("zzz"), 3));
    CHECK(strcmp(show(iter), "abc=v;ac=v;") == 0);
    /* What it shows is settled by the first step. */
    OK(kv_iter_new(store, &iter));
    OK(kv_iter_keys_only(iter));
    OK(kv_iter_next(iter, &key, &key_len, &value, &value_len));
    CHECK(key != NULL && value == NULL && value_len == 0);
    STATUS(kv_iter_sort(iter), KV_ERR_INVALID);
    STATUS(kv_iter_prefix(iter, NULL, 0), KV_ERR_INVALID);
    kv_iter_free(iter);
    OK(kv_close(store));
}

static void arguments(const char *path) {
    kv_store *store = open_store(path);
    kv_snapshot *snapshot = (kv_snapshot *)&snapshot;
    kv_iter *iter = (kv_iter *)&iter;
    const uint8_t *data;
    size_t len, count;
    STATUS(kv_snapshot_new(NULL, &snapshot), KV_ERR_INVALID);
    CHECK(snapshot == NULL);
    STATUS(kv_snapshot_new(store, NULL), KV_ERR_INVALID);
    STATUS(kv_snapshot_get(NULL, NULL, 0, &data, &len), KV_ERR_INVALID);
    STATUS(kv_snapshot_iter(NULL, &iter), KV_ERR_INVALID);
    CHECK(iter == NULL);
    STATUS(kv_iter_new(NULL, &iter), KV_ERR_INVALID);
    STATUS(kv_iter_new(store, NULL), KV_ERR_INVALID);
    STATUS(kv_iter_next(NULL, &data, &len, NULL, NULL), KV_ERR_INVALID);
    STATUS(kv_iter_sort(NULL), KV_ERR_INVALID);
    OK(kv_iter_new(store, &iter));
    STATUS(kv_iter_next(iter, NULL, &len, NULL, NULL), KV_ERR_INVALID);
    STATUS(kv_iter_prefix(iter, NULL, 1), KV_ERR_INVALID);
    STATUS(kv_iter_range(iter, NULL, 0, NULL, 1), KV_ERR_INVALID);
    STATUS(kv_iter_fill(iter, NULL, 1, &len, &count), KV_ERR_INVALID);
    STATUS(kv_iter_fill(iter, NULL, 0, NULL, &count), KV_ERR_INVALID);
    STATUS(kv_iter_fill(iter, NULL, 0, &len, &count), KV_DONE);
    kv_iter_free(iter);
    kv_iter_free(NULL);
    kv_snapshot_free(NULL);
    OK(kv_snapshot_new(store, &snapshot));
    STATUS(kv_snapshot_get(snapshot, NULL, 1, &data, &len), KV_ERR_INVALID);
    STATUS(kv_snapshot_get(snapshot, NULL, 0, NULL, &len), KV_ERR_INVALID);
    kv_snapshot_free(snapshot);
    OK(kv_close(store));
}

static uint32_t u32_at(const uint8_t *data) {
    return data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

/* Buffers of every size show the same items as single steps do. */
static void packed(const char *path) {
    enum { N = 40 };
    kv_store *store = open_store(path);
    for (uint64_t n = 0; n < N; n++) OK(set_numbered(store, n, 7, n * 3));
    for (size_t cap = 0; cap < 700; cap += cap < 140 ? 1 : 111) {
        kv_iter *iter = sorted(store);
        uint8_t *buf = malloc(cap + 1), *large = NULL;
        uint64_t seen = 0;
        int32_t status;
        CHECK(buf != NULL);
        for (;;) {
            size_t used, count, at = 0;
            uint8_t *items = buf;
            buf[cap] = 0xa5;
            status = kv_iter_fill(iter, buf, cap, &used, &count);
            CHECK(buf[cap] == 0xa5);
            if (status == KV_ERR_BUFFER_TOO_SMALL) {
                CHECK(count == 0 && used > cap);
                free(large);
                items = large = malloc(used);
                CHECK(large != NULL);
                OK(kv_iter_fill(iter, large, used, &used, &count));
                CHECK(count == 1);
            } else if (status == KV_DONE) {
                CHECK(count == 0 && used == 0);
                break;
            } else {
                OK(status);
                CHECK(count >= 1 && used <= cap);
            }
            for (; count > 0; count--, seen++) {
                char key[32];
                uint8_t value[3 * N];
                size_t key_len = numbered_key(seen, key), len = seen * 3;
                fill(value, len, seen * 1000003 + 7);
                CHECK(u32_at(items + at) == key_len && u32_at(items + at + 4) == len);
                at += KV_ITER_ITEM_HEAD;
                CHECK(memcmp(items + at, key, key_len) == 0);
                CHECK(memcmp(items + at + key_len, value, len) == 0);
                at += key_len + len;
            }
            CHECK(at == used);
        }
        COMPARE(seen, ==, N);
        kv_iter_free(iter);
        free(buf);
        free(large);
    }
    OK(kv_close(store));
}

/* Writers move all keys from one generation to the next by batches; what is seen is one of them. */
enum { KEYS = 200, WRITERS = 4 };
static volatile bool over;

static void *write_generations(void *argument) {
    kv_store *store = argument;
    kv_batch *batch;
    uint64_t state = (uint64_t)(uintptr_t)&batch | 1;
    OK(kv_batch_new(&batch));
    while (!over) {
        uint64_t generation = next_random(&state);
        OK(kv_batch_clear(batch));
        for (uint64_t n = 0; n < KEYS; n++) {
            char key[32];
            OK(kv_batch_set(batch, bytes(key), numbered_key(n, key), (const uint8_t *)&generation, 8));
        }
        OK(kv_write(store, batch));
    }
    kv_batch_free(batch);
    return NULL;
}

static void *compact(void *argument) {
    while (!over) OK(kv_compact(argument));
    return NULL;
}

static uint64_t generation_of(kv_iter *iter) {
    const uint8_t *key, *value;
    size_t key_len, value_len;
    uint64_t generation = 0, seen = 0;
    bool shown[KEYS] = {false};
    int32_t status;
    while ((status = kv_iter_next(iter, &key, &key_len, &value, &value_len)) == KV_OK) {
        uint64_t found, number = strtoull((const char *)key + 4, NULL, 10);
        CHECK(value_len == 8 && number < KEYS && !shown[number]);
        shown[number] = true;
        memcpy(&found, value, 8);
        CHECK(seen == 0 || found == generation);
        generation = found;
        seen++;
    }
    STATUS(status, KV_DONE);
    COMPARE(seen, ==, KEYS);
    kv_iter_free(iter);
    return generation;
}

static void under_load(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 65536}, {KV_OPT_COMPACT_THRESHOLD, 65536}));
    pthread_t threads[WRITERS + 1];
    kv_batch *batch;
    OK(kv_batch_new(&batch));
    for (uint64_t n = 0; n < KEYS; n++) {
        char key[32];
        OK(kv_batch_set(batch, bytes(key), numbered_key(n, key), bytes("12345678"), 8));
    }
    OK(kv_write(store, batch));
    kv_batch_free(batch);
    for (int n = 0; n < WRITERS; n++) CHECK(pthread_create(&threads[n], NULL, write_generations, store) == 0);
    CHECK(pthread_create(&threads[WRITERS], NULL, compact, store) == 0);
    for (int round = 0; round < (quick() ? 5 : 150); round++) {
        kv_snapshot *snapshot;
        kv_iter *iter, *again;
        const uint8_t *value;
        size_t len;
        uint64_t generation, found;
        OK(kv_snapshot_new(store, &snapshot));
        OK(kv_snapshot_iter(snapshot, &iter));
        OK(kv_snapshot_iter(snapshot, &again));
        if (round % 2) OK(kv_iter_sort(again));
        DOING("round %d, first", round);
        generation = generation_of(iter);
        DOING("round %d, again", round);
        found = generation_of(again);
        COMPARE(found, ==, generation);
        OK(kv_snapshot_get(snapshot, bytes("key-00000042"), 12, &value, &len));
        memcpy(&found, value, 8);
        COMPARE(found, ==, generation);
        kv_snapshot_free(snapshot);
        OK(kv_iter_new(store, &iter));
        DOING("round %d, now", round);
        generation_of(iter);
    }
    over = true;
    for (int n = 0; n <= WRITERS; n++) CHECK(pthread_join(threads[n], NULL) == 0);
    OK(kv_close(store));
}

/* What a child inherits it cannot use, and freeing it does no harm. */
static void in_a_child(const char *path) {
    kv_store *store = open_store(path);
    kv_snapshot *snapshot;
    kv_iter *iter;
    pid_t child;
    OK(set_text(store, "k", "v"));
    OK(kv_snapshot_new(store, &snapshot));
    OK(kv_iter_new(store, &iter));
    child = fork();
    if (child == 0) {
        const uint8_t *data;
        size_t len;
        STATUS(kv_snapshot_get(snapshot, bytes("k"), 1, &data, &len), KV_ERR_FORKED);
        STATUS(kv_iter_next(iter, &data, &len, NULL, NULL), KV_ERR_FORKED);
        STATUS(kv_iter_sort(iter), KV_ERR_FORKED);
        kv_iter_free(iter);
        kv_snapshot_free(snapshot);
        end_child();
    }
    check_child(child);
    snapshot_has(snapshot, "k", "v");
    kv_snapshot_free(snapshot);
    kv_iter_free(iter);
    OK(kv_close(store));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    one_moment(path_in(dir, "moment"));
    what_is_shown(path_in(dir, "shown"));
    arguments(path_in(dir, "arguments"));
    packed(path_in(dir, "packed"));
    under_load(path_in(dir, "load"));
    in_a_child(path_in(dir, "child"));
    return 0;
}
