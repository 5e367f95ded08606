/* LevelDB: a log-structured merge tree. */
#include "bench.h"

#ifdef HAVE_LEVELDB

#include <leveldb/c.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_BYTES ((size_t)512 << 20)
#define WRITE_BUFFER_BYTES ((size_t)64 << 20)

struct store {
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_cache_t *cache;
    leveldb_filterpolicy_t *filter;
    leveldb_readoptions_t *read;
    leveldb_writeoptions_t *write;
};

static int status(const char *call, char *error)
{
    if (error == NULL)
        return BENCH_OK;
    complain("leveldb", call, error);
    leveldb_free(error);
    return BENCH_FAILED;
}

static const char *version(void)
{
    static char text[16];
    snprintf(text, sizeof text, "%d.%d", leveldb_major_version(), leveldb_minor_version());
    return text;
}

static void *open_store(const struct setup *setup)
{
    struct store *store = calloc(1, sizeof *store);
    store->options = leveldb_options_create();
    store->cache = leveldb_cache_create_lru(CACHE_BYTES);
    store->filter = leveldb_filterpolicy_create_bloom(10);
    leveldb_options_set_create_if_missing(store->options, 1);
    leveldb_options_set_cache(store->options, store->cache);
    leveldb_options_set_filter_policy(store->options, store->filter);
    leveldb_options_set_write_buffer_size(store->options, WRITE_BUFFER_BYTES);
    leveldb_options_set_compression(store->options, leveldb_no_compression);
    store->read = leveldb_readoptions_create();
    store->write = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(store->write, setup->synced);
    char *error = NULL;
    store->db = leveldb_open(store->options, setup->dir, &error);
    return status("open", error) == BENCH_OK ? store : NULL;
}

static bool close_store(void *db)
{
    struct store *store = db;
    leveldb_close(store->db);
    leveldb_options_destroy(store->options);
    leveldb_cache_destroy(store->cache);
    leveldb_filterpolicy_destroy(store->filter);
    leveldb_readoptions_destroy(store->read);
    leveldb_writeoptions_destroy(store->write);
    free(store);
    return true;
}

static int set(void *db, const void *key, const void *value, size_t value_len)
{
    struct store *store = db;
    char *error = NULL;
    leveldb_put(store->db, store->write, key, KEY_SIZE, value, value_len, &error);
    return status("put", error);
}

/* The C interface knows no get but the allocating one. */
static int get(void *db, const void *key, void *buf, size_t cap, size_t *value_len)
{
    struct store *store = db;
    char *error = NULL;
    char *value = leveldb_get(store->db, store->read, key, KEY_SIZE, value_len, &error);
    if (value == NULL)
        return error ? status("get", error) : BENCH_ABSENT;
    memcpy(buf, value, *value_len < cap ? *value_len : cap);
    leveldb_free(value);
    return BENCH_OK;
}

static int del(void *db, const void *key)
{
    struct store *store = db;
    char *error = NULL;
    leveldb_delete(store->db, store->write, key, KEY_SIZE, &error);
    return status("delete", error);
}

static int batch(void *db, const struct pair *pairs, size_t count, size_t value_len)
{
    struct store *store = db;
    char *error = NULL;
    leveldb_writebatch_t *batch = leveldb_writebatch_create();
    for (size_t i = 0; i < count; i++)
        leveldb_writebatch_put(batch, (const char *)pairs[i].key, KEY_SIZE,
                               (const char *)pairs[i].value, value_len);
    leveldb_write(store->db, store->write, batch, &error);
    leveldb_writebatch_destroy(batch);
    return status("write", error);
}

static int iterate(void *db, visit_fn *visit, void *arg)
{
    struct store *store = db;
    char *error = NULL;
    leveldb_iterator_t *it = leveldb_create_iterator(store->db, store->read);
    for (leveldb_iter_seek_to_first(it); leveldb_iter_valid(it); leveldb_iter_next(it)) {
        size_t key_len, value_len;
        const char *key = leveldb_iter_key(it, &key_len);
        const char *value = leveldb_iter_value(it, &value_len);
        visit(arg, key, key_len, value, value_len);
    }
    leveldb_iter_get_error(it, &error);
    leveldb_iter_destroy(it);
    return status("iterate", error);
}

static int compact(void *db)
{
    struct store *store = db;
    leveldb_compact_range(store->db, NULL, 0, NULL, 0);
    return BENCH_OK;
}

const struct driver leveldb_driver = {
    .name = "leveldb",
    .settings = "bloom filter of 10 bits, 512 MiB block cache, 64 MiB write buffer, no compression",
    .synced_settings = "sync = true",
    .version = version, .open = open_store, .close = close_store, .set = set, .get = get,
    .del = del, .batch = batch, .iterate = iterate, .compact = compact,
};

#endif
