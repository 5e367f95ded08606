/* kvstore: a directory of logs and a hash index in memory. */
#include "bench.h"

#ifdef HAVE_KVSTORE

#include <kvstore.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *call, int32_t code)
{
    char message[256] = "";
    kv_last_error(message, sizeof message);
    return complain("kvstore", call, *message ? message : kv_strerror(code));
}

static const char *version(void)
{
    return kv_version();
}

static void *open_store(const struct setup *setup)
{
    kv_store *store = NULL;
    kv_options *options = kv_options_new();
    int32_t code = options ? KV_OK : KV_ERR_NO_MEMORY;
    if (code == KV_OK && setup->synced)
        code = kv_options_set(options, KV_OPT_SYNC, KV_SYNC_ALWAYS);
    if (code == KV_OK)
        code = kv_open(setup->dir, options, &store);
    if (code != KV_OK)
        failed("kv_open", code);
    kv_options_free(options);
    return store;
}

static bool close_store(void *db)
{
    int32_t code = kv_close(db);
    return code == KV_OK || failed("kv_close", code) == BENCH_OK;
}

static int set(void *db, const void *key, const void *value, size_t value_len)
{
    int32_t code = kv_set(db, key, KEY_SIZE, value, value_len);
    return code == KV_OK ? BENCH_OK : failed("kv_set", code);
}

static int get(void *db, const void *key, void *buf, size_t cap, size_t *value_len)
{
    int32_t code = kv_get_into(db, key, KEY_SIZE, buf, cap, value_len);
    if (code == KV_OK)
        return BENCH_OK;
    return code == KV_NOT_FOUND ? BENCH_ABSENT : failed("kv_get_into", code);
}

/* For those who want to know what the allocating call costs beside the other. */
static int get_allocated(void *db, const void *key, void *buf, size_t cap, size_t *value_len)
{
    uint8_t *value;
    int32_t code = kv_get(db, key, KEY_SIZE, &value, value_len);
    if (code == KV_NOT_FOUND)
        return BENCH_ABSENT;
    if (code != KV_OK)
        return failed("kv_get", code);
    if (*value_len <= cap)
        memcpy(buf, value, *value_len);
    kv_free_buf(value);
    return BENCH_OK;
}

static int del(void *db, const void *key)
{
    int32_t code = kv_del(db, key, KEY_SIZE);
    return code == KV_OK ? BENCH_OK : failed("kv_del", code);
}

static int compact(void *db)
{
    int32_t code = kv_compact(db);
    return code == KV_OK ? BENCH_OK : failed("kv_compact", code);
}

#ifdef KV_HAS_BATCH
static int batch(void *db, const struct pair *pairs, size_t count, size_t value_len)
{
    kv_batch *batch = NULL;
    int32_t code = kv_batch_new(&batch);
    for (size_t i = 0; code == KV_OK && i < count; i++)
        code = kv_batch_set(batch, pairs[i].key, KEY_SIZE, pairs[i].value, value_len);
    if (code == KV_OK)
        code = kv_write(db, batch);
    kv_batch_free(batch);
    return code == KV_OK ? BENCH_OK : failed("kv_write", code);
}
#endif

#ifdef KV_HAS_ITER
static int iterate(void *db, visit_fn *visit, void *arg)
{
    kv_iter *iter = NULL;
    const uint8_t *key, *value;
    size_t key_len, value_len;
    int32_t code = kv_iter_new(db, &iter);
    while (code == KV_OK
           && (code = kv_iter_next(iter, &key, &key_len, &value, &value_len)) == KV_OK)
        visit(arg, key, key_len, value, value_len);
    kv_iter_free(iter);
    return code == KV_DONE ? BENCH_OK : failed("kv_iter_next", code);
}
#endif

#ifdef KV_HAS_BATCH
#define BATCH .batch = batch,
#else
#define BATCH
#endif
#ifdef KV_HAS_ITER
#define ITERATE .iterate = iterate,
#else
#define ITERATE
#endif
#define SETTINGS "defaults: checksums verified on every read, background compaction"
#define SYNCED "KV_SYNC_ALWAYS"
#define OPERATIONS .derived = ".hint", .version = version, .open = open_store, \
                   .close = close_store, .set = set, .del = del, BATCH ITERATE .compact = compact

const struct driver kvstore_driver = {
    .name = "kvstore", .settings = SETTINGS "; kv_get_into", .synced_settings = SYNCED,
    .get = get, OPERATIONS,
};

const struct driver kvstore_alloc_driver = {
    .name = "kvstore-alloc", .settings = SETTINGS "; kv_get", .synced_settings = SYNCED,
    .get = get_allocated, .extra = true, OPERATIONS,
};

#endif
