/* Berkeley DB: the hash access method in a transactional environment. */
#include "bench.h"

#ifdef HAVE_BDB

#include <db.h>
#include <stdlib.h>
#include <string.h>

#define CACHE_BYTES ((u_int32_t)512 << 20)
#define CHECKPOINT_KIB (64 * 1024)
#define BULK_BYTES (1 << 20)

struct store {
    DB_ENV *env;
    DB *db;
};

/* Each thread looks now and then whether the log has grown enough for a checkpoint. */
struct session {
    struct store *store;
    unsigned writes;
};

static int failed(const char *call, int code)
{
    return complain("bdb", call, db_strerror(code));
}

static const char *version(void)
{
    static char text[32];
    int major, minor, patch;
    db_version(&major, &minor, &patch);
    snprintf(text, sizeof text, "%d.%d.%d", major, minor, patch);
    return text;
}

/* One transaction locks a page or more a record of a batch; the defaults are for a thousand. */
static int configure(DB_ENV *env, bool synced)
{
    int code = env->set_cachesize(env, 0, CACHE_BYTES, 1);
    if (code == 0)
        code = env->set_lk_max_locks(env, 100000);
    if (code == 0)
        code = env->set_lk_max_objects(env, 100000);
    if (code == 0)
        code = env->set_lk_detect(env, DB_LOCK_DEFAULT);
    if (code == 0)
        code = env->set_lg_bsize(env, 4 << 20);
    if (code == 0)
        code = env->set_lg_max(env, 64 << 20);
    if (code == 0)
        code = env->log_set_config(env, DB_LOG_AUTO_REMOVE, 1);
    if (code == 0 && !synced)
        code = env->set_flags(env, DB_TXN_WRITE_NOSYNC, 1);
    return code;
}

static void *open_store(const struct setup *setup)
{
    const u_int32_t env_flags = DB_CREATE | DB_INIT_LOCK | DB_INIT_LOG | DB_INIT_MPOOL
                              | DB_INIT_TXN | DB_RECOVER | DB_THREAD | DB_PRIVATE;
    const size_t page_size = 4096;
    struct store *store = calloc(1, sizeof *store);
    int code = db_env_create(&store->env, 0);
    if (code == 0)
        code = configure(store->env, setup->synced);
    if (code == 0)
        code = store->env->open(store->env, setup->dir, env_flags, 0644);
    if (code == 0)
        code = db_create(&store->db, store->env, 0);
    if (code == 0)
        code = store->db->set_h_nelem(store->db, (u_int32_t)setup->records);
    /* The fill factor that its documentation computes: (page - 32) / (key + value + 8). */
    if (code == 0 && setup->value_size < page_size / 4)
        code = store->db->set_h_ffactor(store->db,
            (u_int32_t)((page_size - 32) / (KEY_SIZE + setup->value_size + 8)));
    if (code == 0)
        code = store->db->open(store->db, NULL, "data.db", NULL, DB_HASH,
                               DB_CREATE | DB_AUTO_COMMIT | DB_THREAD, 0644);
    if (code == 0)
        return store;
    failed("open", code);
    return NULL;
}

static bool close_store(void *db)
{
    struct store *store = db;
    int code = store->db->close(store->db, 0);
    if (code == 0)
        code = store->env->txn_checkpoint(store->env, 0, 0, 0);
    if (code == 0)
        code = store->env->close(store->env, 0);
    free(store);
    return code == 0 || failed("close", code) == BENCH_OK;
}

static void *begin(void *db)
{
    struct session *session = calloc(1, sizeof *session);
    session->store = db;
    return session;
}

static int wrote(struct session *session)
{
    DB_ENV *env = session->store->env;
    if (++session->writes % 4096 != 0)
        return BENCH_OK;
    int code = env->txn_checkpoint(env, CHECKPOINT_KIB, 0, 0);
    return code == 0 ? BENCH_OK : failed("checkpoint", code);
}

static DBT in(const void *data, size_t len)
{
    return (DBT){ .data = (void *)data, .size = (u_int32_t)len };
}

static int set(void *s, const void *key, const void *value, size_t value_len)
{
    struct session *session = s;
    DB *db = session->store->db;
    DBT k = in(key, KEY_SIZE), v = in(value, value_len);
    int code;
    do /* the victim of a deadlock tries again */
        code = db->put(db, NULL, &k, &v, 0);
    while (code == DB_LOCK_DEADLOCK);
    return code == 0 ? wrote(session) : failed("put", code);
}

static int get(void *s, const void *key, void *buf, size_t cap, size_t *value_len)
{
    DB *db = ((struct session *)s)->store->db;
    DBT k = in(key, KEY_SIZE);
    DBT v = { .data = buf, .ulen = (u_int32_t)cap, .flags = DB_DBT_USERMEM };
    int code;
    do
        code = db->get(db, NULL, &k, &v, 0);
    while (code == DB_LOCK_DEADLOCK);
    *value_len = v.size;
    if (code == 0)
        return BENCH_OK;
    return code == DB_NOTFOUND ? BENCH_ABSENT : failed("get", code);
}

static int del(void *s, const void *key)
{
    struct session *session = s;
    DB *db = session->store->db;
    DBT k = in(key, KEY_SIZE);
    int code;
    do
        code = db->del(db, NULL, &k, 0);
    while (code == DB_LOCK_DEADLOCK);
    return code == 0 ? wrote(session) : failed("del", code);
}

static int batch(void *s, const struct pair *pairs, size_t count, size_t value_len)
{
    struct session *session = s;
    struct store *store = session->store;
    DB_TXN *txn;
    int code = store->env->txn_begin(store->env, NULL, &txn, 0);
    if (code != 0)
        return failed("txn_begin", code);
    for (size_t i = 0; i < count && code == 0; i++) {
        DBT k = in(pairs[i].key, KEY_SIZE), v = in(pairs[i].value, value_len);
        code = store->db->put(store->db, txn, &k, &v, 0);
    }
    if (code != 0) {
        txn->abort(txn);
        return failed("put", code);
    }
    if ((code = txn->commit(txn, 0)) != 0)
        return failed("commit", code);
    session->writes |= 4095; /* a batch is worth a look at the log */
    return wrote(session);
}

static int iterate(void *s, visit_fn *visit, void *arg)
{
    struct store *store = ((struct session *)s)->store;
    DBC *cursor;
    int code = store->db->cursor(store->db, NULL, &cursor, 0);
    if (code != 0)
        return failed("cursor", code);
    DBT k = { 0 };
    DBT bulk = { .data = malloc(BULK_BYTES), .ulen = BULK_BYTES, .flags = DB_DBT_USERMEM };
    while ((code = cursor->get(cursor, &k, &bulk, DB_MULTIPLE_KEY | DB_NEXT)) == 0) {
        void *at, *key, *value;
        size_t key_len, value_len;
        DB_MULTIPLE_INIT(at, &bulk);
        for (;;) {
            DB_MULTIPLE_KEY_NEXT(at, &bulk, key, key_len, value, value_len);
            if (at == NULL)
                break;
            visit(arg, key, key_len, value, value_len);
        }
    }
    cursor->close(cursor);
    free(bulk.data);
    return code == DB_NOTFOUND ? BENCH_OK : failed("cursor get", code);
}

const struct driver bdb_driver = {
    .name = "bdb",
    .settings = "DB_HASH sized for the records, transactions with DB_TXN_WRITE_NOSYNC, 512 MiB"
                " cache, checkpoint every 64 MiB of log",
    .synced_settings = "without DB_TXN_WRITE_NOSYNC",
    .version = version, .open = open_store, .close = close_store, .begin = begin, .end = free,
    .set = set, .get = get, .del = del, .batch = batch, .iterate = iterate,
};

#endif
