/* RocksDB: a log-structured merge tree. */
#include "bench.h"

#ifdef HAVE_ROCKSDB

#include <rocksdb/c.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CACHE_MIB 512

struct store {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write;
};

static int status(const char *call, char *error)
{
    if (error == NULL)
        return BENCH_OK;
    complain("rocksdb", call, error);
    rocksdb_free(error);
    return BENCH_FAILED;
}

static const char *version(void)
{
    return ROCKSDB_VERSION; /* the C interface does not tell, so bench.mk does */
}

static void *open_store(const struct setup *setup)
{
    struct store *store = calloc(1, sizeof *store);
    store->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(store->options, 1);
    rocksdb_options_increase_parallelism(store->options, (int)sysconf(_SC_NPROCESSORS_ONLN));
    rocksdb_options_optimize_for_point_lookup(store->options, CACHE_MIB);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(store->options, 1);
    rocksdb_options_set_bytes_per_sync(store->options, 1 << 20);
    rocksdb_options_set_compression(store->options, rocksdb_no_compression);
    store->read = rocksdb_readoptions_create();
    store->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(store->write, setup->synced);
    char *error = NULL;
    store->db = rocksdb_open(store->options, setup->dir, &error);
    return status("open", error) == BENCH_OK ? store : NULL;
}

static bool close_store(void *db)
{
    struct store *store = db;
    rocksdb_close(store->db);
    rocksdb_options_destroy(store->options);
    rocksdb_readoptions_destroy(store->read);
    rocksdb_writeoptions_destroy(store->write);
    free(store);
    return true;
}

static int set(void *db, const void *key, const void *value, size_t value_len)
{
    struct store *store = db;
    char *error = NULL;
    rocksdb_put(store->db, store->write, key, KEY_SIZE, value, value_len, &error);
    return status("put", error);
}

static int get(void *db, const void *key, void *buf, size_t cap, size_t *value_len)
{
    struct store *store = db;
    char *error = NULL;
    rocksdb_pinnableslice_t *slice =
        rocksdb_get_pinned(store->db, store->read, key, KEY_SIZE, &error);
    if (slice == NULL)
        return error ? status("get", error) : BENCH_ABSENT;
    const char *value = rocksdb_pinnableslice_value(slice, value_len);
    memcpy(buf, value, *value_len < cap ? *value_len : cap);
    rocksdb_pinnableslice_destroy(slice);
    return BENCH_OK;
}

static int del(void *db, const void *key)
{
    struct store *store = db;
    char *error = NULL;
    rocksdb_delete(store->db, store->write, key, KEY_SIZE, &error);
    return status("delete", error);
}

static int batch(void *db, const struct pair *pairs, size_t count, size_t value_len)
{
    struct store *store = db;
    char *error = NULL;
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    for (size_t i = 0; i < count; i++)
        rocksdb_writebatch_put(batch, (const char *)pairs[i].key, KEY_SIZE,
                               (const char *)pairs[i].value, value_len);
    rocksdb_write(store->db, store->write, batch, &error);
    rocksdb_writebatch_destroy(batch);
    return status("write", error);
}

static int iterate(void *db, visit_fn *visit, void *arg)
{
    struct store *store = db;
    char *error = NULL;
    rocksdb_iterator_t *it = rocksdb_create_iterator(store->db, store->read);
    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        size_t key_len, value_len;
        const char *key = rocksdb_iter_key(it, &key_len);
        const char *value = rocksdb_iter_value(it, &value_len);
        visit(arg, key, key_len, value, value_len);
    }
    rocksdb_iter_get_error(it, &error);
    rocksdb_iter_destroy(it);
    return status("iterate", error);
}

static int compact(void *db)
{
    struct store *store = db;
    rocksdb_compact_range(store->db, NULL, 0, NULL, 0);
    return BENCH_OK;
}

const struct driver rocksdb_driver = {
    .name = "rocksdb",
    .settings = "IncreaseParallelism, OptimizeForPointLookup with a 512 MiB cache, dynamic level"
                " bytes, bytes_per_sync 1 MiB, no compression, pinned gets",
    .synced_settings = "sync = true",
    .version = version, .open = open_store, .close = close_store, .set = set, .get = get,
    .del = del, .batch = batch, .iterate = iterate, .compact = compact,
};

#endif
