/*
 * Opening and closing: what is created, what is refused, and that nothing depends on how the path is written.
 */
#include "files.h"

static void create_close_open(const char *path) {
    kv_store *store = open_store(path);
    OK(set_text(store, "a", "1"));
    OK(kv_close(store));
    store = open_store(path);
    HAS(store, "a", "1");
    COMPARE(recovery_of(store).clean, ==, 1);
    OK(kv_close(store));
}

static void null_is_fine_or_an_error(const char *path) {
    kv_store *store = (kv_store *)&store;
    OK(kv_close(NULL));
    STATUS(kv_open(NULL, NULL, &store), KV_ERR_INVALID);
    CHECK(store == NULL);
    STATUS(kv_open(path, NULL, NULL), KV_ERR_INVALID);
    store = (kv_store *)&store;
    STATUS(kv_open("", NULL, &store), KV_ERR_INVALID);
    CHECK(store == NULL);
    CHECK(access(path, F_OK) != 0);
}

static void create_if_missing(const char *path) {
    kv_store *store = (kv_store *)&store;
    STATUS(try_open(path, WITH({KV_OPT_CREATE_IF_MISSING, 0}), &store), KV_ERR_NOT_A_DATABASE);
    CHECK(store == NULL);
    CHECK(access(path, F_OK) != 0);
    OK(kv_close(open_store(path)));
    OK(kv_close(open_with(path, WITH({KV_OPT_CREATE_IF_MISSING, 0}))));
}

static void error_if_exists(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_ERROR_IF_EXISTS, 1}));
    OK(set_text(store, "a", "1"));
    OK(kv_close(store));
    STATUS(try_open(path, WITH({KV_OPT_ERROR_IF_EXISTS, 1}), &store), KV_ERR_EXISTS);
    CHECK(store == NULL);
    store = open_store(path);
    HAS(store, "a", "1");
    OK(kv_close(store));
}

static void an_empty_directory_will_do(const char *path) {
    CHECK(mkdir(path, 0777) == 0);
    create_close_open(path);
}

static void what_is_not_a_database(const char *dir) {
    kv_store *store;
    struct bytes content;
    const char *file = path_in(dir, "file");
    write_file(file, "precious", 8);
    STATUS(try_open(file, NULL, &store), KV_ERR_NOT_A_DATABASE);
    CHECK(store == NULL);
    content = read_file(file);
    CHECK(content.len == 8 && memcmp(content.data, "precious", 8) == 0);
    free(content.data);
    STATUS(try_open(path_in(file, "below"), NULL, &store) < 0, 1);
    CHECK(store == NULL);
    STATUS(try_open(path_in(dir, "no/such/parent"), NULL, &store) < 0, 1);
    CHECK(store == NULL);
    CHECK(access(path_in(dir, "no"), F_OK) != 0);
}

static void a_path_too_long(void) {
    size_t len = 70000;
    kv_store *store = (kv_store *)&store;
    char *path = malloc(len + 1);
    CHECK(path != NULL);
    memset(path, 'x', len);
    path[len] = 0;
    CHECK(try_open(path, NULL, &store) < 0);
    CHECK(store == NULL);
    free(path);
}

static void paths_are_bytes(const char *dir) {
    create_close_open(path_in(dir, "with blank"));
    create_close_open(path_in(dir, "gr\xc3\xbc\xc3\x9f" "e"));
    create_close_open(path_in(dir, "trailing/"));
#ifdef __linux__
    create_close_open(path_in(dir, "not utf-8: \xff\xfe"));
#endif
}

/* The host may go to another directory: a relative path means what it meant when it was given. */
static void the_host_may_change_directory(const char *dir) {
    char back[4096];
    kv_store *store;
    CHECK(getcwd(back, sizeof back) != NULL);
    CHECK(chdir(dir) == 0);
    store = open_with("relative", WITH({KV_OPT_SEGMENT_SIZE, 4096}));
    CHECK(chdir("/") == 0);
    for (int version = 0; version < 10; version++) {
        for (int i = 0; i < 20; i++) OK(set_numbered(store, i, version, 200));
    }
    OK(kv_sync(store));
    OK(kv_compact(store));
    OK(kv_close(store));
    CHECK(chdir(back) == 0);
    store = open_store(path_in(dir, "relative"));
    for (int i = 0; i < 20; i++) HAS_NUMBERED(store, i, 9, 200);
    OK(kv_close(store));
}

static void many_at_once(const char *dir) {
    kv_store *stores[10];
    char name[32];
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "many-%d", i);
        stores[i] = open_store(path_in(dir, name));
    }
    for (int i = 0; i < 10; i++) OK(set_numbered(stores[i], 1, i, 100));
    for (int i = 0; i < 10; i++) {
        HAS_NUMBERED(stores[i], 1, i, 100);
        OK(kv_close(stores[i]));
    }
}

static void versions(void) {
    char version[64];
    snprintf(version, sizeof version, "%d.%d.%d", KVSTORE_VERSION_MAJOR, KVSTORE_VERSION_MINOR, KVSTORE_VERSION_PATCH);
    CHECK(strcmp(kv_version(), KVSTORE_VERSION) == 0);
    CHECK(strncmp(kv_version(), version, strlen(version)) == 0);
    COMPARE(kv_abi_version(), ==, KV_ABI_VERSION);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    versions();
    null_is_fine_or_an_error(path_in(dir, "null"));
    create_close_open(path_in(dir, "created"));
    create_if_missing(path_in(dir, "missing"));
    error_if_exists(path_in(dir, "exclusive"));
    an_empty_directory_will_do(path_in(dir, "empty"));
    what_is_not_a_database(dir);
    a_path_too_long();
    paths_are_bytes(dir);
    the_host_may_change_directory(dir);
    many_at_once(dir);
    return 0;
}
