/*
 * The end of the log is cut off, overwritten with zeros or with garbage, as after a power cut: the database opens with the
 * records before the tear, takes new ones, and has both after opening again. What was synced is never given up in silence.
 */
#include "files.h"

enum { SYNCED = 12, UNSYNCED = 6, LEN = 60, FRAMES = 200, PADDING = 20000 };

/* The log as the format describes it: a header of 64 bytes, then frames: length, content, checksum. */
struct frames {
    size_t count, end[FRAMES];
    bool is_mark[FRAMES];
};

static struct frames parse(struct bytes log) {
    struct frames frames = {0};
    size_t offset = 64;
    while (offset + 12 <= log.len) {
        uint64_t prefix = 0, len;
        for (int i = 7; i >= 0; i--) prefix = prefix << 8 | log.data[offset + (size_t)i];
        if (prefix == 0) break;
        len = prefix & ((UINT64_C(1) << 48) - 1);
        CHECK(frames.count < FRAMES && len <= log.len - offset - 12);
        offset += 8 + len + 4;
        frames.is_mark[frames.count] = prefix >> 62 & 1;
        frames.end[frames.count++] = offset;
    }
    return frames;
}

static void write_synced_and_unsynced(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_BACKGROUND, 0}));
    for (int i = 0; i < SYNCED; i++) OK(set_numbered(store, i, 1, LEN));
    OK(kv_sync(store));
    for (int i = SYNCED; i < SYNCED + UNSYNCED; i++) OK(set_numbered(store, i, 1, LEN));
}

/* The database as it was when its writer was killed, and the log file that it was writing to. */
struct original {
    const char *path, *damaged, *name;
    struct bytes log;
    struct frames frames;
    size_t synced_end, end;
};

static struct original original(const char *dir) {
    struct original it = {path_in(dir, "original"), path_in(dir, "damaged"), NULL, {NULL, 0}, {0}, 0, 0};
    struct listing logs;
    in_a_killed_child(write_synced_and_unsynced, it.path);
    logs = list_dir(it.path, ".log");
    CHECK(logs.count == 1);
    it.name = strdup(logs.names[0]);
    it.log = read_file(path_in(it.path, it.name));
    it.frames = parse(it.log);
    for (size_t i = 0; i < it.frames.count; i++) {
        it.end = it.frames.end[i];
        if (it.frames.is_mark[i]) it.synced_end = it.end;
    }
    CHECK(it.synced_end > 0 && it.synced_end < it.end);
    /* Some of the space reserved behind the end is enough, and faster. */
    if (it.log.len > it.end + PADDING) it.log.len = it.end + PADDING;
    free_listing(logs);
    return it;
}

/* Records that are still whole in a damaged copy of the log. */
static uint64_t intact(const struct original *it, const uint8_t *log, size_t len) {
    uint64_t records = 0;
    for (size_t i = 0; i < it->frames.count; i++) {
        if (it->frames.end[i] > len || memcmp(log, it->log.data, it->frames.end[i]) != 0) break;
        records += !it->frames.is_mark[i];
    }
    return records;
}

static void has_first(kv_store *store, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) HAS_NUMBERED(store, i, 1, LEN);
    for (uint64_t i = count; i < SYNCED + UNSYNCED; i++) HAS_NOT_NUMBERED(store, i);
}

static void append_more(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_BACKGROUND, 0}));
    for (int i = 0; i < 5; i++) OK(set_numbered(store, 1000 + i, 2, LEN));
}

/* The log is replaced by `log`: exactly its intact records are there, and then what is appended. */
static void recovers(const struct original *it, const uint8_t *log, size_t len, bool torn) {
    uint64_t records = intact(it, log, len);
    struct kv_recovery_info info;
    kv_store *store;
    copy_database(it->path, it->damaged);
    write_file(path_in(it->damaged, it->name), log, len);

    store = open_with(it->damaged, WITH({KV_OPT_READ_ONLY, 1}));
    has_first(store, records);
    OK(kv_close(store));
    store = open_store(it->damaged);
    info = recovery_of(store);
    COMPARE(info.clean, ==, 0);
    COMPARE(info.damaged_records, ==, 0);
    if (torn) COMPARE(info.torn_bytes, >, 0);
    has_first(store, records);
    COMPARE(stats_of(store).keys, ==, records);
    OK(set_numbered(store, 1000, 1, LEN));
    OK(kv_close(store));

    /* A tear that was passed over instead of cut shows only now. */
    store = open_store(it->damaged);
    COMPARE(recovery_of(store).clean, ==, 1);
    COMPARE(recovery_of(store).torn_bytes, ==, 0);
    has_first(store, records);
    HAS_NUMBERED(store, 1000, 1, LEN);
    OK(kv_close(store));
}

/* As recovers(), but the next writer is killed too. */
static void recovers_from_two_crashes(const struct original *it, const uint8_t *log, size_t len) {
    uint64_t records = intact(it, log, len);
    kv_store *store;
    copy_database(it->path, it->damaged);
    write_file(path_in(it->damaged, it->name), log, len);
    in_a_killed_child(append_more, it->damaged);
    store = open_store(it->damaged);
    has_first(store, records);
    for (int i = 0; i < 5; i++) HAS_NUMBERED(store, 1000 + i, 2, LEN);
    COMPARE(stats_of(store).keys, ==, records + 5);
    OK(kv_close(store));
}

enum damage { CUT, CUT_AND_PADDED, ZEROS, GARBAGE, ONE_BIT };

/* Everything from `at` on is damaged. */
static void damaged_from(const struct original *it, size_t at, enum damage damage) {
    struct bytes log = {malloc(it->log.len), it->log.len};
    bool torn = false;
    CHECK(log.data != NULL);
    DOING("damage %d from offset %zu, the log has %zu bytes, %zu of them synced", damage, at, it->end, it->synced_end);
    memcpy(log.data, it->log.data, log.len);
    switch (damage) {
    case CUT:
        log.len = at;
        break;
    case CUT_AND_PADDED:
        memset(log.data + at, 0, it->end - at);
        log.len = it->end + 7;
        break;
    case ZEROS:
        memset(log.data + at, 0, log.len - at);
        break;
    case GARBAGE:
        fill(log.data + at, it->end - at, at);
        torn = true;
        break;
    case ONE_BIT:
        log.data[at] ^= (uint8_t)(1 << at % 8);
        torn = true;
        break;
    }
    recovers(it, log.data, log.len, torn);
    if (at % 10 == 0) recovers_from_two_crashes(it, log.data, log.len);
    free(log.data);
}

/* Around the ends of frames, of their lengths and of their checksums, and in between. */
static void every_kind_of_tear(const struct original *it) {
    static const int PLACES[] = {0, 1, 7, 8, 9, 30, 70, -5, -4, -1};
    size_t start = it->synced_end, turn = 0;
    for (size_t i = 0; i < it->frames.count; i++) {
        if (it->frames.end[i] <= start) continue;
        for (size_t place = 0; place < sizeof PLACES / sizeof *PLACES; place++) {
            size_t at = PLACES[place] >= 0 ? start + (size_t)PLACES[place] : it->frames.end[i] + (size_t)PLACES[place];
            if (quick() && turn++ % 11) continue;
            damaged_from(it, at, (enum damage)((place + i) % (ONE_BIT + 1)));
        }
        start = it->frames.end[i];
    }
    damaged_from(it, it->end, CUT);
    damaged_from(it, it->end, ZEROS);
}

/* What never was a record lies behind the last one. */
static void junk_behind_the_end(const struct original *it) {
    static const uint64_t PREFIXES[] = {1, 7, 8, 12, 100, UINT64_C(1) << 40, UINT64_MAX, UINT64_C(1) << 63 | 100, UINT64_C(1) << 62 | 8,
                                        UINT64_C(3) << 62 | 8, UINT64_C(1) << 50 | 20, UINT64_C(1) << 63, INT64_MAX};
    static const size_t LENGTHS[] = {1, 7, 8, 12, 13, 500, 9000};
    uint8_t *log = calloc(1, it->end + 10000);
    CHECK(log != NULL);
    memcpy(log, it->log.data, it->end);
    for (size_t i = 0; i < sizeof PREFIXES / sizeof *PREFIXES; i++) {
        for (int byte = 0; byte < 8; byte++) log[it->end + (size_t)byte] = (uint8_t)(PREFIXES[i] >> 8 * byte);
        /* Alone, or with something behind it. */
        DOING("the prefix %" PRIx64 " behind the end", PREFIXES[i]);
        if (i % 2) fill(log + it->end + 8, 100, i);
        recovers(it, log, it->end + (i % 2 ? 108 : 8), true);
        memset(log + it->end, 0, 200);
    }
    for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
        DOING("%zu bytes of garbage behind the end", LENGTHS[i]);
        fill(log + it->end, LENGTHS[i], i + 50);
        recovers(it, log, it->end + LENGTHS[i], true);
    }
    free(log);
}

/* Damage before the sync mark is not a tear: the key says so, and all others are there. */
static void synced_records_are_not_cut(const struct original *it) {
    for (uint64_t i = 0; i < SYNCED; i += 5) {
        struct bytes log = {malloc(it->log.len), it->log.len};
        kv_store *store;
        CHECK(log.data != NULL);
        memcpy(log.data, it->log.data, log.len);
        log.data[it->frames.end[i] - 10] ^= 4;
        copy_database(it->path, it->damaged);
        write_file(path_in(it->damaged, it->name), log.data, log.len);
        store = open_store(it->damaged);
        COMPARE(recovery_of(store).torn_bytes, ==, 0);
        for (uint64_t key = 0; key < SYNCED + UNSYNCED; key++) {
            char name[32];
            uint8_t *value;
            size_t len;
            if (key != i) {
                HAS_NUMBERED(store, key, 1, LEN);
                continue;
            }
            STATUS(kv_get(store, bytes(name), numbered_key(key, name), &value, &len), KV_ERR_CORRUPT);
            CHECK(value == NULL && len == 0);
        }
        OK(kv_close(store));
        free(log.data);
    }
}

enum { CHAIN = 60, CHAIN_LEN = 200 };

static void write_many_segments(const char *path) {
    kv_store *store = open_with(path, WITH({KV_OPT_BACKGROUND, 0}, {KV_OPT_SEGMENT_SIZE, 4096}));
    for (int i = 0; i < CHAIN; i++) OK(set_numbered(store, i, 1, CHAIN_LEN));
}

/* No key is missing while a later one is there; what is there is right. Returns how many are not missing. */
static uint64_t without_a_hole(kv_store *store) {
    uint64_t missing_from = CHAIN;
    for (uint64_t i = 0; i < CHAIN; i++) {
        char key[32];
        uint8_t *value;
        size_t len, key_len = numbered_key(i, key);
        int32_t status = kv_get(store, bytes(key), key_len, &value, &len);
        kv_free_buf(value);
        if (status == KV_NOT_FOUND) {
            if (missing_from == CHAIN) missing_from = i;
        } else {
            COMPARE(missing_from, ==, CHAIN);
            if (status != KV_ERR_CORRUPT) HAS_NUMBERED(store, i, 1, CHAIN_LEN);
        }
    }
    return missing_from;
}

/* One segment of several is damaged: later ones must not survive an earlier one. */
static void a_tear_between_segments(const char *dir) {
    const char *path = path_in(dir, "chain"), *copy = path_in(dir, "chain-damaged");
    struct listing logs;
    in_a_killed_child(write_many_segments, path);
    logs = list_dir(path, ".log");
    CHECK(logs.count > 3);
    for (size_t i = 0; i < logs.count; i++) {
        for (int damage = 0; damage < 5; damage++) {
            struct bytes log = read_file(path_in(path, logs.names[i]));
            kv_store *store;
            uint64_t before;
            DOING("damage %d to %s of %zu", damage, logs.names[i], logs.count);
            copy_database(path, copy);
            if (damage == 1) memset(log.data + log.len / 2, 0, log.len - log.len / 2);
            if (damage == 2) log.data[1500] ^= 1;
            if (damage == 3) log.data[20] ^= 1;
            write_file(path_in(copy, logs.names[i]), log.data, damage == 0 ? 1500 : damage == 4 ? 0 : log.len);
            free(log.data);
            if (try_open(copy, NULL, &store) != KV_OK) continue;
            before = without_a_hole(store);
            OK(set_numbered(store, 5000, 1, 10));
            OK(kv_close(store));
            store = open_store(copy);
            COMPARE(without_a_hole(store), ==, before);
            HAS_NUMBERED(store, 5000, 1, 10);
            OK(kv_close(store));
        }
    }
    free_listing(logs);
}

int main(int argc, char **argv) {
    const char *dir = data_dir(argc, argv);
    struct original it = original(dir);
    every_kind_of_tear(&it);
    if (!quick()) junk_behind_the_end(&it);
    synced_records_are_not_cut(&it);
    a_tear_between_segments(dir);
    free(it.log.data);
    free((char *)(uintptr_t)it.name);
    return 0;
}
