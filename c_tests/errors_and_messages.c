/*
 * Errors: a code for programs, a message for people, results that are cleared, and nothing else.
 */
#include "check.h"

static void every_code_has_a_text(void) {
    static const int32_t CODES[] = {
        KV_OK, KV_NOT_FOUND, KV_DONE, KV_ERR_INVALID, KV_ERR_IO, KV_ERR_NO_SPACE, KV_ERR_NO_MEMORY, KV_ERR_LOCKED,
        KV_ERR_BUSY, KV_ERR_CORRUPT, KV_ERR_FORMAT, KV_ERR_TOO_LARGE, KV_ERR_BUFFER_TOO_SMALL,
        KV_ERR_NOT_A_DATABASE, KV_ERR_EXISTS, KV_ERR_READ_ONLY, KV_ERR_POISONED, KV_ERR_FORKED, KV_ERR_CANCELLED,
        KV_ERR_INTERNAL,
    };
    enum { COUNT = sizeof CODES / sizeof *CODES };
    const char *unknown = kv_strerror(12345);
    CHECK(unknown != NULL && *unknown);
    for (int i = 0; i < COUNT; i++) {
        CHECK(strlen(kv_strerror(CODES[i])) > 0);
        CHECK(strcmp(kv_strerror(CODES[i]), unknown) != 0);
        CHECK(CODES[i] == KV_OK || i < 3 || CODES[i] < 0);
        for (int j = 0; j < i; j++) {
            CHECK(CODES[i] != CODES[j]);
            CHECK(strcmp(kv_strerror(CODES[i]), kv_strerror(CODES[j])) != 0);
        }
    }
    CHECK(strcmp(kv_strerror(INT32_MIN), unknown) == 0);
    CHECK(strcmp(kv_strerror(INT32_MAX), unknown) == 0);
}

static void null_handles(void) {
    uint8_t *value = (uint8_t *)&value, buffer[8];
    size_t len = 77;
    struct kv_stats stats;
    struct kv_recovery_info info;
    STATUS(kv_set(NULL, bytes("k"), 1, bytes("v"), 1), KV_ERR_INVALID);
    STATUS(kv_get(NULL, bytes("k"), 1, &value, &len), KV_ERR_INVALID);
    CHECK(value == NULL && len == 0);
    len = 77;
    STATUS(kv_get_into(NULL, bytes("k"), 1, buffer, 8, &len), KV_ERR_INVALID);
    CHECK(len == 0);
    STATUS(kv_exists(NULL, bytes("k"), 1), KV_ERR_INVALID);
    STATUS(kv_del(NULL, bytes("k"), 1), KV_ERR_INVALID);
    STATUS(kv_sync(NULL), KV_ERR_INVALID);
    STATUS(kv_compact(NULL), KV_ERR_INVALID);
    STATUS(kv_maintain(NULL, 1), KV_ERR_INVALID);
    memset(&stats, 0xff, sizeof stats);
    memset(&info, 0xff, sizeof info);
    STATUS(kv_stats(NULL, &stats, sizeof stats), KV_ERR_INVALID);
    STATUS(kv_recovery_info(NULL, &info, sizeof info), KV_ERR_INVALID);
    CHECK(stats.keys == 0 && stats.mapped == 0 && info.clean == 0 && info.rejected_hints == 0);
    STATUS(kv_options_set(NULL, KV_OPT_BACKGROUND, 1), KV_ERR_INVALID);
}

static void null_results(kv_store *store) {
    uint8_t *value = (uint8_t *)&value;
    size_t len = 77;
    OK(set_text(store, "k", "v"));
    STATUS(kv_get(store, bytes("k"), 1, NULL, &len), KV_ERR_INVALID);
    CHECK(len == 0);
    STATUS(kv_get(store, bytes("k"), 1, &value, NULL), KV_ERR_INVALID);
    CHECK(value == NULL);
    STATUS(kv_get(store, bytes("k"), 1, NULL, NULL), KV_ERR_INVALID);
    value = (uint8_t *)&value;
    len = 77;
    STATUS(kv_get(store, NULL, 1, &value, &len), KV_ERR_INVALID);
    CHECK(value == NULL && len == 0);
    STATUS(kv_stats(store, NULL, sizeof(struct kv_stats)), KV_ERR_INVALID);
    STATUS(kv_recovery_info(store, NULL, sizeof(struct kv_recovery_info)), KV_ERR_INVALID);
}

/* Programs older and newer than the library pass other sizes. */
static void structures_of_other_sizes(kv_store *store) {
    enum { WORDS = sizeof(struct kv_stats) / 8 };
    uint64_t newer[WORDS + 5];
    memset(newer, 0xff, sizeof newer);
    OK(kv_stats(store, (struct kv_stats *)newer, sizeof newer - 8));
    COMPARE(newer[0], ==, stats_of(store).keys);
    for (int i = WORDS; i < WORDS + 4; i++) COMPARE(newer[i], ==, 0);
    COMPARE(newer[WORDS + 4], ==, UINT64_MAX);
    memset(newer, 0xff, sizeof newer);
    STATUS(kv_stats(store, (struct kv_stats *)newer, 0), KV_ERR_INVALID);
    STATUS(kv_stats(store, (struct kv_stats *)newer, 8), KV_ERR_INVALID);
    STATUS(kv_stats(store, (struct kv_stats *)newer, sizeof(struct kv_stats) + 1), KV_ERR_INVALID);
    STATUS(kv_stats(store, (struct kv_stats *)newer, SIZE_MAX), KV_ERR_INVALID);
    STATUS(kv_recovery_info(store, (struct kv_recovery_info *)newer, 0), KV_ERR_INVALID);
    STATUS(kv_recovery_info(store, (struct kv_recovery_info *)newer, SIZE_MAX), KV_ERR_INVALID);
    COMPARE(newer[0], ==, UINT64_MAX);
}

static void messages(const char *dir) {
    char message[4096], small[8];
    const char *path = path_in(dir, "no/such/directory");
    kv_store *store;
    size_t len;
    CHECK(kv_open(path, NULL, &store) < 0);
    len = kv_last_error(message, sizeof message);
    CHECK(len > 0 && len == strlen(message));
    /* It says which file. */
    CHECK(strstr(message, path) != NULL);
    CHECK(kv_last_error(NULL, 0) == len);
    CHECK(kv_last_error(NULL, 100) == len);
    memset(small, '#', sizeof small);
    CHECK(kv_last_error(small, 0) == len && small[0] == '#');
    CHECK(kv_last_error(small, 1) == len && small[0] == 0 && small[1] == '#');
    CHECK(kv_last_error(small, 5) == len && memcmp(small, message, 4) == 0 && small[4] == 0 && small[5] == '#');
    CHECK(kv_last_error(message, len + 1) == len && message[len] == 0);

    /* Success and outcomes that are not failures leave it. */
    store = open_store(path_in(dir, "messages"));
    STATUS(del_text(store, "none"), KV_NOT_FOUND);
    CHECK(kv_last_error(NULL, 0) == len);
    STATUS(kv_set(store, NULL, 5, NULL, 0), KV_ERR_INVALID);
    kv_last_error(message, sizeof message);
    CHECK(strstr(message, "key") != NULL);
    OK(kv_close(store));
}

static void *other_thread(void *store) {
    char message[100] = "x";
    CHECK(kv_last_error(message, sizeof message) == 0 && message[0] == 0);
    STATUS(kv_set(store, NULL, 5, NULL, 0), KV_ERR_INVALID);
    CHECK(kv_last_error(message, sizeof message) > 0);
    return NULL;
}

static void each_thread_has_its_own(kv_store *store) {
    char before[1000], after[1000];
    pthread_t thread;
    STATUS(kv_set(store, bytes("k"), SIZE_MAX, NULL, 0), KV_ERR_TOO_LARGE);
    kv_last_error(before, sizeof before);
    CHECK(pthread_create(&thread, NULL, other_thread, store) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    kv_last_error(after, sizeof after);
    CHECK(strcmp(before, after) == 0);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    kv_store *store;
    CHECK(kv_last_error(NULL, 0) == 0);
    every_code_has_a_text();
    null_handles();
    store = open_store(path_in(dir, "db"));
    null_results(store);
    structures_of_other_sizes(store);
    each_thread_has_its_own(store);
    OK(kv_close(store));
    messages(dir);
    return 0;
}
