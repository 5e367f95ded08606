/* Kyoto Cabinet's HashDB: a hash table in a mapped file. */
#include "bench.h"

#ifdef HAVE_KYOTO

#include <kclangc.h>
#include <stdlib.h>
#include <string.h>

static int failed(KCDB *db, const char *call)
{
    return complain("kyoto", call, kcdbemsg(db));
}

static const char *version(void)
{
    return KCVERSION;
}

static void *open_store(const struct setup *setup)
{
    char path[4096];
    /* The mapping is to hold the whole file: buckets, and records with room to spare. */
    size_t map_bytes = setup->records * (setup->value_size + 128) * 2 + ((size_t)64 << 20);
    uint32_t mode = KCOWRITER | KCOCREATE | setup->variant;
    if (setup->synced)
        mode |= KCOAUTOTRAN | KCOAUTOSYNC;
    snprintf(path, sizeof path, "%s/data.kch#opts=l#bnum=%zu#msiz=%zu", setup->dir,
             setup->records * 2, map_bytes);
    KCDB *db = kcdbnew();
    if (kcdbopen(db, path, mode))
        return db;
    failed(db, "open");
    kcdbdel(db);
    return NULL;
}

static bool close_store(void *db)
{
    bool fine = kcdbclose(db);
    kcdbdel(db);
    return fine;
}

static int set(void *db, const void *key, const void *value, size_t value_len)
{
    return kcdbset(db, key, KEY_SIZE, value, value_len) ? BENCH_OK : failed(db, "set");
}

static int get(void *db, const void *key, void *buf, size_t cap, size_t *value_len)
{
    int32_t len = kcdbgetbuf(db, key, KEY_SIZE, buf, cap);
    if (len >= 0) {
        *value_len = (size_t)len;
        return BENCH_OK;
    }
    return kcdbecode(db) == KCENOREC ? BENCH_ABSENT : failed(db, "getbuf");
}

static int del(void *db, const void *key)
{
    return kcdbremove(db, key, KEY_SIZE) ? BENCH_OK : failed(db, "remove");
}

static int batch(void *db, const struct pair *pairs, size_t count, size_t value_len)
{
    KCREC records[BATCH_SIZE];
    for (size_t i = 0; i < count; i++) {
        records[i].key = (KCSTR){ (char *)pairs[i].key, KEY_SIZE };
        records[i].value = (KCSTR){ (char *)pairs[i].value, value_len };
    }
    return kcdbsetbulk(db, records, count, 1) == (int64_t)count ? BENCH_OK : failed(db, "setbulk");
}

struct visitor {
    visit_fn *visit;
    void *arg;
};

static const char *visit_record(const char *key, size_t key_len, const char *value,
                                size_t value_len, size_t *new_len, void *arg)
{
    (void)new_len;
    const struct visitor *visitor = arg;
    visitor->visit(visitor->arg, key, key_len, value, value_len);
    return KCVISNOP;
}

static int iterate(void *db, visit_fn *visit, void *arg)
{
    struct visitor visitor = { visit, arg };
    return kcdbiterate(db, visit_record, &visitor, 0) ? BENCH_OK : failed(db, "iterate");
}

#define SETTINGS "HashDB, TLINEAR, two buckets a record, the whole file mapped"
#define SYNCED "OAUTOTRAN and OAUTOSYNC"
#define OPERATIONS .version = version, .open = open_store, .close = close_store, .set = set, \
                   .get = get, .del = del, .batch = batch, .iterate = iterate

/* After the death of the process it repairs itself by a scan; its documentation says that this
 * may lose some records. The check after a kill has always found all of them. */
const struct driver kyoto_driver = {
    .name = "kyoto", .settings = SETTINGS "; repairs by a scan after a crash",
    .synced_settings = SYNCED, OPERATIONS,
};

const struct driver kyoto_tran_driver = {
    .name = "kyoto-tran", .settings = SETTINGS ", OAUTOTRAN", .variant = KCOAUTOTRAN,
    .synced_settings = SYNCED, .extra = true, OPERATIONS,
};

#endif
