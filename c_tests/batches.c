/*
 * Batches: all or nothing, for readers, for conditions and for crashes. Conditional writes.
 */
#include "check.h"

static kv_batch *new_batch(void) {
    kv_batch *batch;
    OK(kv_batch_new(&batch));
    CHECK(batch != NULL && kv_batch_len(batch) == 0);
    return batch;
}

static void batch_set(kv_batch *batch, const char *key, const char *value) {
    OK(kv_batch_set(batch, bytes(key), strlen(key), bytes(value), strlen(value)));
}

static void batch_del(kv_batch *batch, const char *key) {
    OK(kv_batch_del(batch, bytes(key), strlen(key)));
}

static void require(kv_batch *batch, const char *key, const char *value) {
    OK(kv_batch_require(batch, bytes(key), strlen(key), bytes(value), strlen(value)));
}

static void several_changes(kv_store *store) {
    kv_batch *batch = new_batch();
    char key[] = "copied";
    OK(set_text(store, "old", "1"));
    batch_set(batch, "a", "1");
    batch_set(batch, "b", "");
    OK(kv_batch_set(batch, NULL, 0, bytes("of the empty key"), 16));
    batch_del(batch, "old");
    batch_del(batch, "absent");
    batch_set(batch, "a", "2");
    batch_set(batch, "c", "3");
    batch_del(batch, "c");
    OK(kv_batch_set(batch, bytes(key), 6, bytes(key), 6));
    memset(key, 'x', 6);
    CHECK(kv_batch_len(batch) == 9);
    HAS_NOT(store, "a");
    OK(kv_write(store, batch));
    HAS(store, "a", "2");
    HAS(store, "b", "");
    HAS(store, "", "of the empty key");
    HAS(store, "copied", "copied");
    HAS_NOT(store, "old");
    HAS_NOT(store, "c");
    COMPARE(stats_of(store).keys, ==, 4);
    /* It can be applied again, and emptied. */
    OK(del_text(store, "a"));
    OK(kv_write(store, batch));
    HAS(store, "a", "2");
    OK(kv_batch_clear(batch));
    CHECK(kv_batch_len(batch) == 0);
    uint64_t log_bytes = stats_of(store).log_bytes;
    OK(kv_write(store, batch));
    batch_del(batch, "absent");
    OK(kv_write(store, batch));
    COMPARE(stats_of(store).log_bytes, ==, log_bytes);
    kv_batch_free(batch);
}

static void conditions(kv_store *store) {
    kv_batch *batch = new_batch();
    OK(set_text(store, "from", "10"));
    (void)del_text(store, "to");
    require(batch, "from", "10");
    OK(kv_batch_require_absent(batch, bytes("to"), 2));
    batch_set(batch, "from", "7");
    batch_set(batch, "to", "3");
    CHECK(kv_batch_len(batch) == 2);
    OK(kv_write(store, batch));
    STATUS(kv_write(store, batch), KV_CONFLICT);
    HAS(store, "from", "7");
    HAS(store, "to", "3");
    /* One that holds does not make up for one that does not. */
    OK(kv_batch_clear(batch));
    require(batch, "from", "7");
    require(batch, "to", "4");
    batch_del(batch, "from");
    STATUS(kv_write(store, batch), KV_CONFLICT);
    HAS(store, "from", "7");
    /* Conditions alone only look. A condition on an absent key does not hold, not even for an empty value. */
    OK(kv_batch_clear(batch));
    require(batch, "from", "7");
    OK(kv_write(store, batch));
    require(batch, "none", "");
    STATUS(kv_write(store, batch), KV_CONFLICT);
    kv_batch_free(batch);
}

static void single_conditions(kv_store *store) {
    (void)del_text(store, "k");
    OK(kv_set_if_absent(store, bytes("k"), 1, bytes("1"), 1));
    STATUS(kv_set_if_absent(store, bytes("k"), 1, bytes("2"), 1), KV_CONFLICT);
    HAS(store, "k", "1");
    OK(kv_replace_if(store, bytes("k"), 1, bytes("1"), 1, NULL, 0));
    STATUS(kv_set_if_absent(store, bytes("k"), 1, bytes("2"), 1), KV_CONFLICT);
    STATUS(kv_replace_if(store, bytes("k"), 1, bytes("1"), 1, bytes("3"), 1), KV_CONFLICT);
    OK(kv_replace_if(store, bytes("k"), 1, NULL, 0, bytes("4"), 1));
    HAS(store, "k", "4");
    STATUS(kv_replace_if(store, bytes("none"), 4, NULL, 0, bytes("x"), 1), KV_CONFLICT);
    HAS_NOT(store, "none");
}

static void arguments(kv_store *store) {
    kv_batch *batch = new_batch();
    static uint8_t long_key[KV_MAX_KEY_LEN + 1];
    STATUS(kv_batch_new(NULL), KV_ERR_INVALID);
    STATUS(kv_batch_set(NULL, bytes("k"), 1, bytes("v"), 1), KV_ERR_INVALID);
    STATUS(kv_batch_set(batch, NULL, 1, bytes("v"), 1), KV_ERR_INVALID);
    STATUS(kv_batch_set(batch, bytes("k"), 1, NULL, 1), KV_ERR_INVALID);
    STATUS(kv_batch_set(batch, long_key, sizeof long_key, NULL, 0), KV_ERR_TOO_LARGE);
    STATUS(kv_batch_del(batch, long_key, sizeof long_key), KV_ERR_TOO_LARGE);
    STATUS(kv_batch_del(NULL, NULL, 0), KV_ERR_INVALID);
    STATUS(kv_batch_require(NULL, NULL, 0, NULL, 0), KV_ERR_INVALID);
    STATUS(kv_batch_require(batch, NULL, 0, NULL, 1), KV_ERR_INVALID);
    STATUS(kv_batch_require_absent(batch, NULL, 1), KV_ERR_INVALID);
    STATUS(kv_batch_clear(NULL), KV_ERR_INVALID);
    STATUS(kv_write(NULL, batch), KV_ERR_INVALID);
    STATUS(kv_write(store, NULL), KV_ERR_INVALID);
    STATUS(kv_set_if_absent(NULL, NULL, 0, NULL, 0), KV_ERR_INVALID);
    STATUS(kv_replace_if(store, NULL, 0, NULL, 1, NULL, 0), KV_ERR_INVALID);
    CHECK(kv_batch_len(batch) == 0 && kv_batch_len(NULL) == 0);
    kv_batch_free(batch);
    kv_batch_free(NULL);
}

/* Values together larger than a segment, the sum larger than what a writer copies at once. */
static void a_large_batch(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 4096}));
    kv_batch *batch = new_batch();
    size_t len = 20000;
    uint8_t *value = malloc(len);
    CHECK(value != NULL);
    for (uint64_t n = 0; n < 300; n++) {
        char key[32];
        fill(value, len, n * 1000003 + 1);
        OK(kv_batch_set(batch, bytes(key), numbered_key(n, key), value, len));
    }
    OK(kv_write(store, batch));
    for (uint64_t n = 0; n < 300; n++) HAS_NUMBERED(store, n, 1, len);
    for (uint64_t n = 0; n < 300; n += 2) OK(del_numbered(store, n));
    OK(kv_compact(store));
    OK(kv_close(store));
    store = open_store(path);
    for (uint64_t n = 0; n < 300; n++) {
        if (n % 2) {
            HAS_NUMBERED(store, n, 1, len);
        } else {
            HAS_NOT_NUMBERED(store, n);
        }
    }
    OK(kv_close(store));
    free(value);
    kv_batch_free(batch);
}

/* Money moves between accounts in several threads, and none is ever made or lost. */
enum { ACCOUNTS = 8, THREADS = 4 };

static int32_t read_number(kv_store *store, const char *key, char text[16]) {
    size_t len;
    int32_t status = kv_get_into(store, bytes(key), strlen(key), (uint8_t *)text, 15, &len);
    text[len] = 0;
    return status;
}

struct teller {
    kv_store *store;
    uint64_t seed, conflicts;
};

static void *transfers(void *argument) {
    struct teller *teller = argument;
    uint64_t state = teller->seed;
    kv_batch *batch = new_batch();
    for (int n = 0; n < (quick() ? 50 : 2000);) {
        char from[16], to[16], from_has[16], to_has[16], text[16];
        snprintf(from, sizeof from, "account-%d", (int)(next_random(&state) % ACCOUNTS));
        snprintf(to, sizeof to, "account-%d", (int)(next_random(&state) % ACCOUNTS));
        if (strcmp(from, to) == 0) continue;
        OK(read_number(teller->store, from, from_has));
        OK(read_number(teller->store, to, to_has));
        if (atoi(from_has) == 0) {
            n++;
            continue;
        }
        OK(kv_batch_clear(batch));
        require(batch, from, from_has);
        require(batch, to, to_has);
        snprintf(text, sizeof text, "%d", atoi(from_has) - 1);
        batch_set(batch, from, text);
        snprintf(text, sizeof text, "%d", atoi(to_has) + 1);
        batch_set(batch, to, text);
        int32_t status = kv_write(teller->store, batch);
        CHECK(status == KV_OK || status == KV_CONFLICT);
        if (status == KV_OK) n++;
        else teller->conflicts++;
    }
    kv_batch_free(batch);
    return NULL;
}

static int money(kv_store *store) {
    char names[ACCOUNTS][16];
    const uint8_t *keys[ACCOUNTS], *values[ACCOUNTS];
    size_t lens[ACCOUNTS], value_lens[ACCOUNTS];
    uint8_t *buf;
    int sum = 0;
    for (int n = 0; n < ACCOUNTS; n++) {
        snprintf(names[n], sizeof names[n], "account-%d", n);
        keys[n] = bytes(names[n]);
        lens[n] = strlen(names[n]);
    }
    OK(kv_get_many(store, ACCOUNTS, keys, lens, values, value_lens, &buf));
    for (int n = 0; n < ACCOUNTS; n++) {
        char text[16] = {0};
        CHECK(values[n] != NULL && value_lens[n] < sizeof text);
        memcpy(text, values[n], value_lens[n]);
        sum += atoi(text);
    }
    kv_free_buf(buf);
    return sum;
}

static void no_money_is_lost(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_SEGMENT_SIZE, 16384}, {KV_OPT_COMPACT_THRESHOLD, 32768}));
    struct teller tellers[THREADS];
    pthread_t threads[THREADS];
    for (int n = 0; n < ACCOUNTS; n++) {
        char name[16];
        snprintf(name, sizeof name, "account-%d", n);
        OK(set_text(store, name, "100"));
    }
    for (int n = 0; n < THREADS; n++) {
        tellers[n] = (struct teller){store, (uint64_t)n + 1, 0};
        CHECK(pthread_create(&threads[n], NULL, transfers, &tellers[n]) == 0);
    }
    for (int n = 0; n < (quick() ? 20 : 500); n++) CHECK(money(store) == 100 * ACCOUNTS);
    for (int n = 0; n < THREADS; n++) CHECK(pthread_join(threads[n], NULL) == 0);
    CHECK(money(store) == 100 * ACCOUNTS);
    OK(kv_close(store));
    store = open_store(path);
    CHECK(money(store) == 100 * ACCOUNTS);
    OK(kv_close(store));
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    kv_store *store = open_store(path_in(dir, "db"));
    several_changes(store);
    conditions(store);
    single_conditions(store);
    arguments(store);
    OK(kv_close(store));
    store = open_store(path_in(dir, "db"));
    HAS(store, "", "of the empty key");
    HAS(store, "to", "3");
    OK(kv_close(store));
    store = open_with(path_in(dir, "db"), WITH({KV_OPT_READ_ONLY, 1}));
    kv_batch *batch = new_batch();
    batch_set(batch, "k", "v");
    STATUS(kv_write(store, batch), KV_ERR_READ_ONLY);
    STATUS(kv_set_if_absent(store, bytes("new"), 3, NULL, 0), KV_ERR_READ_ONLY);
    kv_batch_free(batch);
    OK(kv_close(store));
    a_large_batch(path_in(dir, "large"));
    no_money_is_lost(path_in(dir, "bank"));
    return 0;
}
