/* compact, checkpoint. */
#include "kv.h"

/* --- compact ------------------------------------------------------------------------------ */

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

/* --- checkpoint --------------------------------------------------------------------------- */

static int checkpoint_store(kv_store *store, const char *directory, const char *base) {
    struct progress progress;
    begin_progress(&progress, "checkpoint", false);
    int32_t status = kv_checkpoint_with(store, directory, base, show_progress, &progress);
    end_progress();
    return status == KV_OK ? EXIT_DONE : failed(status);
}

static int run_checkpoint(const struct args *args) {
    kv_store *store;
    int code = open_store(args->operands[0], READING, &store);
    if (code != EXIT_DONE) return code;
    return close_store(store, checkpoint_store(store, args->operands[1], value_of(args, "base")));
}

const struct command checkpoint_command = {
    .name = "checkpoint",
    .operands = "DB DIRECTORY",
    .summary = "make a backup",
    .least = 2,
    .most = 2,
    .run = run_checkpoint,
    .options = {{'b', "base", "OLD", "share the files that are in OLD, an earlier checkpoint, already"}},
    .text = "DIRECTORY, which must not be there yet, becomes a database of its own: open it to use it.\n"
            "On the same file system it shares the files that never change, and takes little space.\n"
            "A program that has the database open makes its checkpoints itself: kv_checkpoint().\n"
            "\n"
            "Examples:\n"
            "  kv checkpoint people.db /backup/monday\n"
            "  kv checkpoint --base /backup/monday people.db /backup/tuesday\n"};
