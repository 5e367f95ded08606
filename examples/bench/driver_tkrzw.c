/* Tkrzw's HashDBM: a hash table in a mapped file. */
#include "bench.h"

#ifdef HAVE_TKRZW

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <tkrzw_langc.h>

struct store {
    TkrzwDBM *dbm;
    bool synced;
};

static int failed(const char *call)
{
    return complain("tkrzw", call, tkrzw_get_last_status_message());
}

static const char *version(void)
{
    return TKRZW_PACKAGE_VERSION;
}

static void *open_store(const struct setup *setup)
{
    struct store *store = calloc(1, sizeof *store);
    char path[4096], params[256];
    snprintf(path, sizeof path, "%s/data.tkh", setup->dir);
    snprintf(params, sizeof params, "num_buckets=%zu%s", setup->records * 2,
             setup->synced ? ",update_mode=UPDATE_APPENDING,"
                             "restore_mode=RESTORE_SYNC|RESTORE_WITH_HARDSYNC" : "");
    store->synced = setup->synced;
    store->dbm = tkrzw_dbm_open(path, true, params);
    if (store->dbm == NULL)
        failed("open");
    return store->dbm ? store : NULL;
}

static bool close_store(void *db)
{
    struct store *store = db;
    bool fine = tkrzw_dbm_close(store->dbm);
    free(store);
    return fine;
}

/* Its own locks spin, also while another thread waits for the disk: a mutex spares it that. */
static pthread_mutex_t synced_writers = PTHREAD_MUTEX_INITIALIZER;

static void write_begin(const struct store *store)
{
    if (store->synced)
        pthread_mutex_lock(&synced_writers);
}

static int write_end(const struct store *store, bool fine, const char *call)
{
    int status = fine ? BENCH_OK : failed(call);
    if (!store->synced)
        return status;
    if (fine && !tkrzw_dbm_synchronize(store->dbm, true, NULL, NULL, ""))
        status = failed("synchronize");
    pthread_mutex_unlock(&synced_writers);
    return status;
}

static int set(void *db, const void *key, const void *value, size_t value_len)
{
    struct store *store = db;
    write_begin(store);
    bool fine = tkrzw_dbm_set(store->dbm, key, KEY_SIZE, value, (int32_t)value_len, true);
    return write_end(store, fine, "set");
}

struct wanted {
    void *buf;
    size_t cap, len;
    bool found;
};

/* The processor sees the record where it lies; tkrzw_dbm_get would allocate and copy it first. */
static const char *copy_out(void *arg, const char *key, int32_t key_len, const char *value,
                            int32_t value_len, int32_t *new_len)
{
    (void)key, (void)key_len, (void)new_len;
    struct wanted *wanted = arg;
    if (value != NULL) {
        wanted->found = true;
        wanted->len = (size_t)value_len;
        memcpy(wanted->buf, value, wanted->len < wanted->cap ? wanted->len : wanted->cap);
    }
    return TKRZW_REC_PROC_NOOP;
}

static int get(void *db, const void *key, void *buf, size_t cap, size_t *value_len)
{
    struct store *store = db;
    struct wanted wanted = { .buf = buf, .cap = cap };
    if (!tkrzw_dbm_process(store->dbm, key, KEY_SIZE, copy_out, &wanted, false))
        return failed("process");
    *value_len = wanted.len;
    return wanted.found ? BENCH_OK : BENCH_ABSENT;
}

static int del(void *db, const void *key)
{
    struct store *store = db;
    write_begin(store);
    return write_end(store, tkrzw_dbm_remove(store->dbm, key, KEY_SIZE), "remove");
}

static int batch(void *db, const struct pair *pairs, size_t count, size_t value_len)
{
    struct store *store = db;
    TkrzwKeyValuePair records[BATCH_SIZE];
    for (size_t i = 0; i < count; i++)
        records[i] = (TkrzwKeyValuePair){ (const char *)pairs[i].key, KEY_SIZE,
                                          (const char *)pairs[i].value, (int32_t)value_len };
    write_begin(store);
    bool fine = tkrzw_dbm_set_multi(store->dbm, records, (int32_t)count, true);
    return write_end(store, fine, "set_multi");
}

struct visitor {
    visit_fn *visit;
    void *arg;
};

/* Called without a value before the first record and after the last one. */
static const char *visit_record(void *arg, const char *key, int32_t key_len, const char *value,
                                int32_t value_len, int32_t *new_len)
{
    (void)new_len;
    const struct visitor *visitor = arg;
    if (value != NULL)
        visitor->visit(visitor->arg, key, (size_t)key_len, value, (size_t)value_len);
    return TKRZW_REC_PROC_NOOP;
}

static int iterate(void *db, visit_fn *visit, void *arg)
{
    struct store *store = db;
    struct visitor visitor = { visit, arg };
    bool fine = tkrzw_dbm_process_each(store->dbm, visit_record, &visitor, false);
    return fine ? BENCH_OK : failed("process_each");
}

static int compact(void *db)
{
    struct store *store = db;
    return tkrzw_dbm_rebuild(store->dbm, "") ? BENCH_OK : failed("rebuild");
}

const struct driver tkrzw_driver = {
    .name = "tkrzw",
    .settings = "HashDBM, MemoryMapParallelFile, two buckets a record, updates in place",
    .synced_settings = "UPDATE_APPENDING, RESTORE_SYNC, a hard synchronize after each write,"
                       " writers take a mutex",
    .version = version, .open = open_store, .close = close_store, .set = set, .get = get,
    .del = del, .batch = batch, .iterate = iterate, .compact = compact,
};

#endif
