/* The stores of this build. Which libraries were found is decided in bench.mk. */
#include "bench.h"

#include <string.h>

#ifdef HAVE_KVSTORE
extern const struct driver kvstore_driver, kvstore_alloc_driver;
#define KVSTORE &kvstore_driver
#define KVSTORE_ALLOC &kvstore_alloc_driver
#else
#define KVSTORE NULL
#define KVSTORE_ALLOC NULL
#endif

#ifdef HAVE_LMDB
extern const struct driver lmdb_driver, lmdb_writemap_driver;
#define LMDB &lmdb_driver
#define LMDB_WRITEMAP &lmdb_writemap_driver
#else
#define LMDB NULL
#define LMDB_WRITEMAP NULL
#endif

#ifdef HAVE_ROCKSDB
extern const struct driver rocksdb_driver;
#define ROCKSDB &rocksdb_driver
#else
#define ROCKSDB NULL
#endif

#ifdef HAVE_LEVELDB
extern const struct driver leveldb_driver;
#define LEVELDB &leveldb_driver
#else
#define LEVELDB NULL
#endif

#ifdef HAVE_SQLITE
extern const struct driver sqlite_driver;
#define SQLITE &sqlite_driver
#else
#define SQLITE NULL
#endif

#ifdef HAVE_TKRZW
extern const struct driver tkrzw_driver;
#define TKRZW &tkrzw_driver
#else
#define TKRZW NULL
#endif

#ifdef HAVE_KYOTO
extern const struct driver kyoto_driver, kyoto_tran_driver;
#define KYOTO &kyoto_driver
#define KYOTO_TRAN &kyoto_tran_driver
#else
#define KYOTO NULL
#define KYOTO_TRAN NULL
#endif

#ifdef HAVE_BDB
extern const struct driver bdb_driver;
#define BDB &bdb_driver
#else
#define BDB NULL
#endif

const struct known_driver known_drivers[] = {
    { "kvstore", KVSTORE },
    { "kvstore-alloc", KVSTORE_ALLOC },
    { "lmdb", LMDB },
    { "lmdb-writemap", LMDB_WRITEMAP },
    { "rocksdb", ROCKSDB },
    { "leveldb", LEVELDB },
    { "sqlite", SQLITE },
    { "tkrzw", TKRZW },
    { "kyoto", KYOTO },
    { "kyoto-tran", KYOTO_TRAN },
    { "bdb", BDB },
    { NULL, NULL },
};

const struct driver *find_driver(const char *name)
{
    for (const struct known_driver *k = known_drivers; k->name; k++)
        if (strcmp(k->name, name) == 0)
            return k->driver;
    return NULL;
}
