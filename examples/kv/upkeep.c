/* compact. */
#include "kv.h"

static int compact_store(kv_store *store) {
    struct kv_stats before, after;
    struct progress progress;
    char from[16], to[16];
    int32_t status = kv_stats(store, &before, sizeof before);
    if (status != KV_OK) return failed(status);
    begin_progress(&progress, "compact", false);
    status = kv_compact_with(store, show_progress, &progress);
    end_progress();
    if (status == KV_OK) status = kv_stats(store, &after, sizeof after);
    if (status != KV_OK) return failed(status);
    printf("%s, was %s\n", size_text(after.log_bytes, to), size_text(before.log_bytes, from));
    return EXIT_DONE;
}

static int run_compact(const struct args *args) {
    kv_store *store;
    int code = open_store(args->operands[0], WRITING, &store);
    return code == EXIT_DONE ? close_store(store, compact_store(store)) : code;
}

const struct command compact_command = {
    .name = "compact",
    .operands = "DB",
    .summary = "give back the space of what is overwritten and deleted",
    .least = 1,
    .most = 1,
    .run = run_compact,
    .text = "Never needed, because compaction runs by itself in programs that write. Of use before a\n"
            "database is copied. Ctrl-C stops it; nothing is lost.\n"
            "\n"
            "Example:\n"
            "  kv compact people.db\n"};
