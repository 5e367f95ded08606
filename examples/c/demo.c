/*
 * kvstore from C: the tour that every folder of examples/ makes in its language.
 *
 *     cc demo.c -o demo $(pkg-config --cflags --libs kvstore)
 */
#include <inttypes.h>
#include <kvstore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Passes on what is no error; prints what went wrong and ends the program otherwise. */
static int32_t check(int32_t status, const char *what) {
    if (status < 0) {
        char message[512];
        kv_last_error(message, sizeof message);
        fprintf(stderr, "cannot %s: %s\n", what, message);
        exit(EXIT_FAILURE);
    }
    return status;
}

static const uint8_t *bytes(const char *text) {
    return (const uint8_t *)text;
}

static void set(kv_store *store, const char *key, const char *value) {
    check(kv_set(store, bytes(key), strlen(key), bytes(value), strlen(value)), "set");
}

/* What kv_get() finds is the caller's, to be freed with kv_free_buf(). */
static void show(kv_store *store, const char *key) {
    uint8_t *value;
    size_t len;
    if (check(kv_get(store, bytes(key), strlen(key), &value, &len), "get") == KV_NOT_FOUND) {
        printf("%s: not found\n", key);
    } else if (len == 0) {
        printf("%s: 0 bytes\n", key);
    } else {
        printf("%s = %.*s\n", key, (int)len, (const char *)value);
    }
    kv_free_buf(value);
}

static void binary_key(kv_store *store) {
    const uint8_t key[] = {0x00, 0xff, 0x0a};
    uint8_t value[16];
    size_t len;
    check(kv_set(store, key, sizeof key, bytes("binary"), 6), "set a binary key");
    check(kv_get_into(store, key, sizeof key, value, sizeof value, &len), "get a binary key");
    for (size_t i = 0; i < sizeof key; i++) printf("%02x", key[i]);
    printf(" = %.*s\n", (int)len, (const char *)value);
}

/* All of a batch is written, or nothing. */
static void write_batch(kv_store *store) {
    static const char *const USERS[][2] = {{"user:grace", "1906"}, {"user:ada", "1815"}, {"user:alan", "1912"}};
    kv_batch *batch;
    check(kv_batch_new(&batch), "make a batch");
    for (size_t i = 0; i < 3; i++) {
        const char *key = USERS[i][0], *value = USERS[i][1];
        check(kv_batch_set(batch, bytes(key), strlen(key), bytes(value), strlen(value)), "add to a batch");
    }
    check(kv_write(store, batch), "write a batch");
    printf("batch of %zu written\n", kv_batch_len(batch));
    kv_batch_free(batch);
}

static void add_user_once(kv_store *store) {
    int32_t status = kv_set_if_absent(store, bytes("user:ada"), 8, bytes("2024"), 4);
    if (check(status, "set if absent") == KV_CONFLICT) printf("ada is taken\n");
}

/* Keys and values are valid until the next step of the iterator. */
static void list_users(kv_store *store) {
    const uint8_t *key, *value;
    size_t key_len, value_len;
    kv_iter *iter;
    check(kv_iter_new(store, &iter), "iterate");
    check(kv_iter_prefix(iter, bytes("user:"), 5), "choose a prefix");
    check(kv_iter_sort(iter), "sort");
    while (check(kv_iter_next(iter, &key, &key_len, &value, &value_len), "go on") != KV_DONE) {
        printf("%.*s = %.*s\n", (int)key_len, (const char *)key, (int)value_len, (const char *)value);
    }
    kv_iter_free(iter);
}

static void provoke_an_error(kv_store *store) {
    static const uint8_t long_key[70000];
    char message[512];
    int32_t status = kv_set(store, long_key, sizeof long_key, NULL, 0);
    kv_last_error(message, sizeof message);
    printf("error %" PRId32 ": %s\n", status, message);
}

int main(int argc, char **argv) {
    kv_store *store;
    check(kv_open(argc > 1 ? argv[1] : "demo.db", NULL, &store), "open");
    set(store, "greeting", "hello");
    show(store, "greeting");
    show(store, "nothing");
    set(store, "empty", "");
    show(store, "empty");
    binary_key(store);
    write_batch(store);
    add_user_once(store);
    list_users(store);
    provoke_an_error(store);
    check(kv_close(store), "close");
    printf("closed\n");
    return EXIT_SUCCESS;
}
