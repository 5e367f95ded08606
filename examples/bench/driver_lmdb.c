/* LMDB: a copy-on-write B+tree in a mapped file. */
#include "bench.h"

#ifdef HAVE_LMDB

#include <lmdb.h>
#include <stdlib.h>
#include <string.h>

struct store {
    MDB_env *env;
    MDB_dbi dbi;
};

/* A read transaction is kept reset and renewed for each get, as its documentation advises. */
struct session {
    struct store *store;
    MDB_txn *reader;
};

static int failed(const char *call, int code)
{
    return complain("lmdb", call, mdb_strerror(code));
}

static const char *version(void)
{
    static char text[32];
    int major, minor, patch;
    mdb_version(&major, &minor, &patch);
    snprintf(text, sizeof text, "%d.%d.%d", major, minor, patch);
    return text;
}

static void *open_store(const struct setup *setup)
{
    /* The map is the limit of the file's growth, so it is generous: three copies of the data. */
    size_t map_size = setup->records * (setup->value_size + 4096 / 16) * 3 + ((size_t)1 << 30);
    if (setup->value_size > 1000)
        map_size += setup->records * 4096 * 3; /* large values take whole pages */
    map_size &= ~(size_t)0xffff;
    struct store *store = calloc(1, sizeof *store);
    MDB_txn *txn = NULL;
    unsigned flags = MDB_NORDAHEAD | setup->variant | (setup->synced ? 0 : MDB_NOSYNC);
    int code = mdb_env_create(&store->env);
    if (code == 0)
        code = mdb_env_set_mapsize(store->env, map_size);
    if (code == 0)
        code = mdb_env_open(store->env, setup->dir, flags, 0644);
    if (code == 0)
        code = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (code == 0)
        code = mdb_dbi_open(txn, NULL, MDB_CREATE, &store->dbi);
    if (code == 0)
        code = mdb_txn_commit(txn);
    if (code == 0)
        return store;
    failed("open", code);
    return NULL;
}

static bool close_store(void *db)
{
    struct store *store = db;
    mdb_env_close(store->env);
    free(store);
    return true;
}

static void *begin(void *db)
{
    struct session *session = calloc(1, sizeof *session);
    session->store = db;
    int code = mdb_txn_begin(session->store->env, NULL, MDB_RDONLY, &session->reader);
    if (code != 0) {
        failed("mdb_txn_begin", code);
        return NULL;
    }
    mdb_txn_reset(session->reader);
    return session;
}

static void end(void *s)
{
    struct session *session = s;
    mdb_txn_abort(session->reader);
    free(session);
}

static int set(void *s, const void *key, const void *value, size_t value_len)
{
    struct store *store = ((struct session *)s)->store;
    MDB_val k = { KEY_SIZE, (void *)key }, v = { value_len, (void *)value };
    MDB_txn *txn;
    int code = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (code != 0)
        return failed("mdb_txn_begin", code);
    if ((code = mdb_put(txn, store->dbi, &k, &v, 0)) != 0) {
        mdb_txn_abort(txn);
        return failed("mdb_put", code);
    }
    return (code = mdb_txn_commit(txn)) == 0 ? BENCH_OK : failed("mdb_txn_commit", code);
}

static int get(void *s, const void *key, void *buf, size_t cap, size_t *value_len)
{
    struct session *session = s;
    MDB_val k = { KEY_SIZE, (void *)key }, v;
    int code = mdb_txn_renew(session->reader);
    if (code == 0)
        code = mdb_get(session->reader, session->store->dbi, &k, &v);
    if (code == 0) {
        *value_len = v.mv_size;
        memcpy(buf, v.mv_data, v.mv_size < cap ? v.mv_size : cap);
    }
    mdb_txn_reset(session->reader);
    if (code == 0)
        return BENCH_OK;
    return code == MDB_NOTFOUND ? BENCH_ABSENT : failed("mdb_get", code);
}

static int del(void *s, const void *key)
{
    struct store *store = ((struct session *)s)->store;
    MDB_val k = { KEY_SIZE, (void *)key };
    MDB_txn *txn;
    int code = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (code != 0)
        return failed("mdb_txn_begin", code);
    if ((code = mdb_del(txn, store->dbi, &k, NULL)) != 0) {
        mdb_txn_abort(txn);
        return failed("mdb_del", code);
    }
    return (code = mdb_txn_commit(txn)) == 0 ? BENCH_OK : failed("mdb_txn_commit", code);
}

static int batch(void *s, const struct pair *pairs, size_t count, size_t value_len)
{
    struct store *store = ((struct session *)s)->store;
    MDB_txn *txn;
    int code = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (code != 0)
        return failed("mdb_txn_begin", code);
    for (size_t i = 0; i < count; i++) {
        MDB_val k = { KEY_SIZE, (void *)pairs[i].key }, v = { value_len, (void *)pairs[i].value };
        if ((code = mdb_put(txn, store->dbi, &k, &v, 0)) != 0) {
            mdb_txn_abort(txn);
            return failed("mdb_put", code);
        }
    }
    return (code = mdb_txn_commit(txn)) == 0 ? BENCH_OK : failed("mdb_txn_commit", code);
}

static int iterate(void *s, visit_fn *visit, void *arg)
{
    struct session *session = s;
    MDB_cursor *cursor;
    MDB_val k, v;
    int code = mdb_txn_renew(session->reader);
    if (code == 0)
        code = mdb_cursor_open(session->reader, session->store->dbi, &cursor);
    if (code != 0)
        return failed("mdb_cursor_open", code);
    while ((code = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == 0)
        visit(arg, k.mv_data, k.mv_size, v.mv_data, v.mv_size);
    mdb_cursor_close(cursor);
    mdb_txn_reset(session->reader);
    return code == MDB_NOTFOUND ? BENCH_OK : failed("mdb_cursor_get", code);
}

#define OPERATIONS .version = version, .open = open_store, .close = close_store, \
                   .begin = begin, .end = end, .set = set, .get = get, .del = del, \
                   .batch = batch, .iterate = iterate

const struct driver lmdb_driver = {
    .name = "lmdb", OPERATIONS,
    .settings = "MDB_NOSYNC, MDB_NORDAHEAD, read transactions renewed",
    .synced_settings = "without MDB_NOSYNC",
};

const struct driver lmdb_writemap_driver = {
    .name = "lmdb-writemap", .variant = MDB_WRITEMAP, OPERATIONS,
    .settings = "MDB_WRITEMAP, MDB_NOSYNC, MDB_NORDAHEAD, read transactions renewed",
    .synced_settings = "without MDB_NOSYNC",
};

#endif
