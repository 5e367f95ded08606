/* stats: what a database says of itself. */
#include "kv.h"

struct counter {
    const char *name; /* for programs: the name of the field */
    const char *label; /* for people */
    size_t offset;
    bool size;
};

#define STATS(field, label, size) {#field, label, offsetof(struct kv_stats, field), size}
#define INFO(field, label, size) {#field, label, offsetof(struct kv_recovery_info, field), size}

/* Those of struct kv_stats that mean something for a store that was opened just now, to be read. */
static const struct counter STORED[] = {
    STATS(keys, "keys", false),
    STATS(live_bytes, "live", true),
    STATS(dead_bytes, "dead", true),
    STATS(tombstone_bytes, "tombstones, part of live", true),
    STATS(log_bytes, "log", true),
    STATS(segments, "segments", false),
    STATS(quarantined_segments, "quarantined segments", false),
    STATS(index_bytes, "index, in memory", true),
};

static const struct counter OPENED[] = {
    INFO(clean, "closed properly", false),
    INFO(scanned_records, "records scanned", false),
    INFO(scanned_bytes, "scanned", true),
    INFO(torn_bytes, "torn end, passed over", true),
    INFO(removed_segments, "segments passed over", false),
    INFO(damaged_records, "damaged records", false),
    INFO(orphan_files, "files left over", false),
    INFO(rejected_hints, "hints rejected", false),
};

static uint64_t value_at(const void *structure, const struct counter *counter) {
    return *(const uint64_t *)(const void *)((const char *)structure + counter->offset);
}

static void print_people(const char *title, const void *structure, const struct counter *counters, size_t count) {
    char size[16];
    printf("%s\n", title);
    for (size_t i = 0; i < count; i++) {
        uint64_t value = value_at(structure, &counters[i]);
        printf("  %-24s %14" PRIu64, counters[i].label, value);
        if (counters[i].size) printf("  %s", size_text(value, size));
        putchar('\n');
    }
}

static void print_json(const void *structure, const struct counter *counters, size_t count) {
    for (size_t i = 0; i < count; i++) {
        printf("%s\"%s\": %" PRIu64, i ? ", " : "{", counters[i].name, value_at(structure, &counters[i]));
    }
    putchar('}');
}

static int print_stats(kv_store *store, bool json) {
    enum { STORED_COUNT = sizeof STORED / sizeof *STORED, OPENED_COUNT = sizeof OPENED / sizeof *OPENED };
    struct kv_stats stats;
    struct kv_recovery_info info;
    int32_t status = kv_stats(store, &stats, sizeof stats);
    if (status == KV_OK) status = kv_recovery_info(store, &info, sizeof info);
    if (status != KV_OK) return failed(status);
    if (!json) {
        print_people("stored", &stats, STORED, STORED_COUNT);
        print_people("found when opening", &info, OPENED, OPENED_COUNT);
        return EXIT_DONE;
    }
    printf("{\"stats\": ");
    print_json(&stats, STORED, STORED_COUNT);
    printf(", \"recovery\": ");
    print_json(&info, OPENED, OPENED_COUNT);
    printf("}\n");
    return EXIT_DONE;
}

static int run_stats(const struct args *args) {
    kv_store *store;
    int code = open_store(args->operands[0], READING, &store);
    if (code != EXIT_DONE) return code;
    return close_store(store, print_stats(store, has(args, "json")));
}

const struct command stats_command = {
    .name = "stats",
    .operands = "DB",
    .summary = "print counters: keys, live and dead bytes, segments",
    .least = 1,
    .most = 1,
    .run = run_stats,
    .options = {{'j', "json", NULL, "one line of JSON, with the names of the fields in kvstore.h"}},
    .text = "Dead bytes are what compaction can give back.\n"
            "\n"
            "Examples:\n"
            "  kv stats people.db\n"
            "  kv stats --json people.db | jq .stats.keys\n"};
