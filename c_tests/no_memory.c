/*
 * Memory runs out: of the allocations of a call each fails in turn. The call says so, nothing else happens, and the
 * store goes on.
 */
#include "check.h"

#if !defined(__GLIBC__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
int main(void) {
    skip("the allocator cannot be replaced");
}
#else

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

/* How many more allocations of this thread succeed before one fails; negative: all do. */
static __thread long left = -1;

static bool fails(void) {
    return left >= 0 && left-- == 0;
}

void *malloc(size_t size) {
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    return fails() ? NULL : __libc_realloc(old, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    *memory = fails() ? NULL : __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}

void *aligned_alloc(size_t alignment, size_t size) {
    return fails() ? NULL : __libc_memalign(alignment, size);
}

static int32_t set(kv_store *store) {
    return kv_set(store, bytes("set"), 3, bytes("1"), 1);
}

static int32_t get(kv_store *store) {
    uint8_t *value;
    size_t len;
    int32_t status = kv_get(store, bytes("a"), 1, &value, &len);
    kv_free_buf(value);
    return status;
}

static int32_t get_many(kv_store *store) {
    const uint8_t *keys[] = {bytes("a"), bytes("b"), bytes("none")}, *values[3];
    size_t lens[] = {1, 1, 4}, value_lens[3];
    uint8_t *buf;
    int32_t status = kv_get_many(store, 3, keys, lens, values, value_lens, &buf);
    kv_free_buf(buf);
    return status;
}

static int32_t set_if_absent(kv_store *store) {
    return kv_set_if_absent(store, bytes("a"), 1, bytes("2"), 1);
}

static int32_t replace_if(kv_store *store) {
    return kv_replace_if(store, bytes("a"), 1, bytes("1"), 1, bytes("1"), 1);
}

static int32_t write_batch(kv_store *store) {
    kv_batch *batch;
    int32_t status = kv_batch_new(&batch);
    if (status == KV_OK) status = kv_batch_require(batch, bytes("a"), 1, bytes("1"), 1);
    if (status == KV_OK) status = kv_batch_set(batch, bytes("new"), 3, bytes("1"), 1);
    if (status == KV_OK) status = kv_batch_del(batch, bytes("b"), 1);
    if (status == KV_OK) status = kv_write(store, batch);
    kv_batch_free(batch);
    return status;
}

static int32_t snapshot(kv_store *store) {
    kv_snapshot *snapshot;
    const uint8_t *value;
    size_t len;
    int32_t status = kv_snapshot_new(store, &snapshot);
    if (status == KV_OK) status = kv_snapshot_get(snapshot, bytes("a"), 1, &value, &len);
    kv_snapshot_free(snapshot);
    return status;
}

static int32_t iterate(kv_store *store, bool sorted) {
    kv_snapshot *snapshot;
    kv_iter *iter = NULL;
    const uint8_t *key, *value;
    size_t key_len, value_len;
    int32_t status = kv_snapshot_new(store, &snapshot);
    if (status == KV_OK) status = kv_snapshot_iter(snapshot, &iter);
    if (status == KV_OK) status = kv_iter_prefix(iter, bytes("a"), 1);
    if (status == KV_OK && sorted) status = kv_iter_sort(iter);
    while (status == KV_OK) status = kv_iter_next(iter, &key, &key_len, &value, &value_len);
    kv_iter_free(iter);
    kv_snapshot_free(snapshot);
    return status == KV_DONE ? KV_OK : status;
}

static int32_t iterate_log(kv_store *store) {
    return iterate(store, false);
}

static int32_t iterate_sorted(kv_store *store) {
    return iterate(store, true);
}

static const struct {
    const char *name;
    int32_t (*call)(kv_store *store);
    int32_t expected;
} calls[] = {
    {"set", set, KV_OK},
    {"get", get, KV_OK},
    {"get_many", get_many, KV_OK},
    {"set_if_absent", set_if_absent, KV_CONFLICT},
    {"replace_if", replace_if, KV_OK},
    {"write", write_batch, KV_OK},
    {"snapshot", snapshot, KV_OK},
    {"iterate", iterate_log, KV_OK},
    {"iterate sorted", iterate_sorted, KV_OK},
};

static void each_fails_in_turn(const char *path, size_t number) {
    kv_options *options = kv_options_new();
    CHECK(options);
    STATUS(kv_options_set(options, KV_OPT_BACKGROUND, 0), KV_OK);
    STATUS(kv_options_set(options, KV_OPT_IO, number % 2 ? KV_IO_SYSCALL : KV_IO_AUTO), KV_OK);
    kv_store *store;
    STATUS(kv_open(path, options, &store), KV_OK);
    kv_options_free(options);
    for (int32_t status = KV_ERR_NO_MEMORY, n = 0; status == KV_ERR_NO_MEMORY; n++) {
        DOING("%s, allocation %d fails", calls[number / 2].name, (int)n);
        STATUS(kv_set(store, bytes("a"), 1, bytes("1"), 1), KV_OK);
        STATUS(kv_set(store, bytes("b"), 1, bytes("1"), 1), KV_OK);
        left = n;
        status = calls[number / 2].call(store);
        if (left < 0) CHECK(status == KV_ERR_NO_MEMORY);
        else STATUS(status, calls[number / 2].expected);
        left = -1;
        if (status == KV_ERR_NO_MEMORY) {
            uint8_t *value;
            size_t len;
            STATUS(kv_get(store, bytes("b"), 1, &value, &len), KV_OK);
            kv_free_buf(value);
        }
    }
    STATUS(kv_close(store), KV_OK);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    if (quick()) skip("the allocator is valgrind's");
    for (size_t number = 0; number < 2 * sizeof calls / sizeof *calls; number++) {
        char name[16];
        snprintf(name, sizeof name, "%d", (int)number);
        each_fails_in_turn(path_in(dir, name), number);
    }
    return 0;
}
#endif
