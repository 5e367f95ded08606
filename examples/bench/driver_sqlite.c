/* SQLite: a B-tree with a write-ahead log; a connection and prepared statements a thread. */
#include "bench.h"

#ifdef HAVE_SQLITE

#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

/* There is one writer at a time; without this others would sleep and try again. */
static pthread_mutex_t writers = PTHREAD_MUTEX_INITIALIZER;

struct store {
    struct setup setup;
    char path[4096];
    sqlite3 *first; /* keeps the log from being folded in whenever a session ends */
};

enum { SET, GET, DEL, BEGIN, COMMIT, ALL, STATEMENTS };

static const char *const sql[STATEMENTS] = {
    [SET] = "INSERT INTO kv VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v",
    [GET] = "SELECT v FROM kv WHERE k = ?1",
    [DEL] = "DELETE FROM kv WHERE k = ?1",
    [BEGIN] = "BEGIN IMMEDIATE",
    [COMMIT] = "COMMIT",
    [ALL] = "SELECT k, v FROM kv",
};

struct session {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENTS];
};

static int failed(sqlite3 *db, const char *call)
{
    return complain("sqlite", call, sqlite3_errmsg(db));
}

static const char *version(void)
{
    return sqlite3_libversion();
}

static sqlite3 *connect_to(const struct store *store)
{
    sqlite3 *db = NULL;
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    bool fine = sqlite3_open_v2(store->path, &db, flags, NULL) == SQLITE_OK
        && sqlite3_busy_timeout(db, 60000) == SQLITE_OK
        && sqlite3_exec(db, "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 10000;"
                            "PRAGMA mmap_size = 0x7fff0000; PRAGMA cache_size = -262144;",
                        NULL, NULL, NULL) == SQLITE_OK
        && sqlite3_exec(db, store->setup.synced ? "PRAGMA synchronous = FULL"
                                                : "PRAGMA synchronous = OFF",
                        NULL, NULL, NULL) == SQLITE_OK;
    if (fine)
        return db;
    failed(db, "connect");
    sqlite3_close(db);
    return NULL;
}

static void *open_store(const struct setup *setup)
{
    struct store *store = calloc(1, sizeof *store);
    store->setup = *setup;
    snprintf(store->path, sizeof store->path, "%s/data.sqlite", setup->dir);
    if ((store->first = connect_to(store)) == NULL)
        return NULL;
    /* Its documentation: WITHOUT ROWID while a row is smaller than a twentieth of a page. */
    const char *table = setup->value_size + KEY_SIZE < 4096 / 20
        ? "CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID"
        : "CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB)";
    if (sqlite3_exec(store->first, table, NULL, NULL, NULL) == SQLITE_OK)
        return store;
    failed(store->first, "create table");
    return NULL;
}

static bool close_store(void *db)
{
    struct store *store = db;
    bool fine = sqlite3_close(store->first) == SQLITE_OK;
    free(store);
    return fine;
}

static void end(void *s)
{
    struct session *session = s;
    for (int i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(session->statements[i]);
    sqlite3_close(session->db);
    free(session);
}

static void *begin(void *db)
{
    struct session *session = calloc(1, sizeof *session);
    session->db = connect_to(db);
    for (int i = 0; session->db && i < STATEMENTS; i++)
        if (sqlite3_prepare_v3(session->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT,
                               &session->statements[i], NULL) != SQLITE_OK) {
            failed(session->db, "prepare");
            end(session);
            return NULL;
        }
    return session->db ? session : NULL;
}

static int run(struct session *session, int which)
{
    sqlite3_stmt *statement = session->statements[which];
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? BENCH_OK : failed(session->db, sql[which]);
}

static int write_locked(struct session *session, int which)
{
    pthread_mutex_lock(&writers);
    int status = run(session, which);
    pthread_mutex_unlock(&writers);
    return status;
}

static void bind_record(struct session *session, const void *key, const void *value,
                        size_t value_len)
{
    sqlite3_bind_blob(session->statements[SET], 1, key, KEY_SIZE, SQLITE_STATIC);
    sqlite3_bind_blob(session->statements[SET], 2, value, (int)value_len, SQLITE_STATIC);
}

static int set(void *s, const void *key, const void *value, size_t value_len)
{
    bind_record(s, key, value, value_len);
    return write_locked(s, SET);
}

static int get(void *s, const void *key, void *buf, size_t cap, size_t *value_len)
{
    struct session *session = s;
    sqlite3_stmt *statement = session->statements[GET];
    sqlite3_bind_blob(statement, 1, key, KEY_SIZE, SQLITE_STATIC);
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        const void *value = sqlite3_column_blob(statement, 0);
        *value_len = (size_t)sqlite3_column_bytes(statement, 0);
        memcpy(buf, value, *value_len < cap ? *value_len : cap);
    }
    sqlite3_reset(statement);
    if (code == SQLITE_ROW)
        return BENCH_OK;
    return code == SQLITE_DONE ? BENCH_ABSENT : failed(session->db, "select");
}

static int del(void *s, const void *key)
{
    struct session *session = s;
    sqlite3_bind_blob(session->statements[DEL], 1, key, KEY_SIZE, SQLITE_STATIC);
    return write_locked(session, DEL);
}

static int batch(void *s, const struct pair *pairs, size_t count, size_t value_len)
{
    pthread_mutex_lock(&writers);
    int status = run(s, BEGIN);
    for (size_t i = 0; status == BENCH_OK && i < count; i++) {
        bind_record(s, pairs[i].key, pairs[i].value, value_len);
        status = run(s, SET);
    }
    if (status == BENCH_OK)
        status = run(s, COMMIT);
    pthread_mutex_unlock(&writers);
    return status;
}

static int iterate(void *s, visit_fn *visit, void *arg)
{
    struct session *session = s;
    sqlite3_stmt *statement = session->statements[ALL];
    int code;
    while ((code = sqlite3_step(statement)) == SQLITE_ROW) {
        const void *key = sqlite3_column_blob(statement, 0);
        const void *value = sqlite3_column_blob(statement, 1);
        visit(arg, key, (size_t)sqlite3_column_bytes(statement, 0), value,
              (size_t)sqlite3_column_bytes(statement, 1));
    }
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? BENCH_OK : failed(session->db, "select");
}

const struct driver sqlite_driver = {
    .name = "sqlite",
    .settings = "WAL, synchronous = OFF, checkpoint every 10,000 pages, 256 MiB cache, 2 GiB"
                " mapped; WITHOUT ROWID for small values, one writer at a time by a mutex",
    .synced_settings = "synchronous = FULL",
    .version = version, .open = open_store, .close = close_store, .begin = begin, .end = end,
    .set = set, .get = get, .del = del, .batch = batch, .iterate = iterate,
};

#endif
