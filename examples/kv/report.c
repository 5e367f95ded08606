/* verify, salvage, import: what looks at damaged data, and reports what it found. */
#include "kv.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* --- Reports ------------------------------------------------------------------------------ */

static int print_problems(const kv_report *report) {
    const char *file, *what;
    uint64_t offset;
    for (size_t i = 0; i < kv_report_len(report); i++) {
        int32_t status = kv_report_problem(report, i, &file, &offset, &what);
        if (status != KV_OK) return failed(status);
        printf("%s: offset %" PRIu64 ": %s\n", file, offset, what);
    }
    return EXIT_DONE;
}

static void print_count(const char *label, uint64_t count) {
    if (count) printf("%s: %" PRIu64 "\n", label, count);
}

static void print_size(const char *label, uint64_t size) {
    char text[16];
    if (size) printf("%s: %s\n", label, size_text(size, text));
}

static int print_totals(const kv_report *report) {
    struct kv_report_totals totals;
    char size[16];
    int32_t status = kv_report_totals(report, &totals, sizeof totals);
    if (status != KV_OK) return failed(status);
    if (totals.problems > kv_report_len(report)) {
        printf("and %" PRIu64 " problems more\n", totals.problems - kv_report_len(report));
    }
    printf("read: %s, %" PRIu64 " records, %" PRIu64 " of them deletions\n", size_text(totals.bytes, size),
           totals.records, totals.tombstones);
    print_count("stored", totals.written_records);
    print_count("damaged records or stretches", totals.lost_records);
    print_size("lost", totals.lost_bytes);
    print_size("incomplete end, never synced", totals.torn_bytes);
    print_count("hints to be made anew", totals.unusable_hints);
    print_count("files left over", totals.orphan_files);
    return totals.problems ? EXIT_DAMAGED : EXIT_DONE;
}

/* Prints and frees what was found. Problems that the work got over are EXIT_DAMAGED too: somebody should know. */
static int finish_report(int32_t status, kv_report *report) {
    int code = EXIT_DONE;
    if (report) {
        code = print_problems(report);
        if (code == EXIT_DONE) code = print_totals(report);
    }
    /* Of damage the report has said more than the message does. */
    if (status != KV_OK && !(status == KV_ERR_CORRUPT && report)) code = failed(status);
    kv_report_free(report);
    return code;
}

/* --- verify ------------------------------------------------------------------------------- */

static int run_verify(const struct args *args) {
    struct progress progress;
    kv_report *report = NULL;
    begin_progress(&progress, "verify", false);
    int32_t status = kv_verify_with(args->operands[0], show_progress, &progress, &report);
    end_progress();
    return finish_report(status, report);
}

const struct command verify_command = {
    .name = "verify",
    .operands = "DB",
    .summary = "check every byte of a database",
    .least = 1,
    .most = 1,
    .run = run_verify,
    .text = "Prints a line for each problem: file, offset, what is wrong. Changes nothing. Exit code 4\n"
            "if there are problems.\n"
            "\n"
            "Example:\n"
            "  kv verify people.db || kv salvage people.db rescued.db\n"};

/* --- salvage ------------------------------------------------------------------------------ */

static int run_salvage(const struct args *args) {
    struct progress progress;
    kv_report *report = NULL;
    begin_progress(&progress, "salvage", false);
    int32_t status = kv_salvage_with(args->operands[0], args->operands[1], show_progress, &progress, &report);
    end_progress();
    return finish_report(status, report);
}

const struct command salvage_command = {
    .name = "salvage",
    .operands = "DB NEWDB",
    .summary = "copy what can still be read from a damaged database",
    .least = 2,
    .most = 2,
    .run = run_salvage,
    .text = "Makes NEWDB, which must not be there yet, of all records of DB whose checksums hold, also\n"
            "where kv cannot open DB. DB is not changed. Prints what was lost; exit code 4 if anything\n"
            "was, 0 if nothing. Where the newest record of a key is lost, an older value of it may\n"
            "come back, or a deleted key.\n"
            "\n"
            "Example:\n"
            "  kv salvage people.db rescued.db\n"};

/* --- import ------------------------------------------------------------------------------- */

static int import_into(kv_store *store, const char *file) {
    struct progress progress;
    kv_report *report = NULL;
    begin_progress(&progress, "import", false);
    int32_t status = kv_import_with(store, file, show_progress, &progress, &report);
    end_progress();
    return finish_report(status, report);
}

static int run_import(const struct args *args) {
    kv_store *store;
    const char *path = args->operands[1];
    /* A name that is not right creates no database. */
    if (access(path, R_OK) != 0) return complain(EXIT_ERROR, "%s: %s", path, strerror(errno));
    int code = open_store(args->operands[0], CREATING, &store);
    return code == EXIT_DONE ? close_store(store, import_into(store, path)) : code;
}

const struct command import_command = {
    .name = "import",
    .operands = "DB LOGFILE",
    .summary = "take in the log file of a breakout1-kv-store",
    .least = 2,
    .most = 2,
    .run = run_import,
    .text = "The database is created if there is none; keys of the same name are replaced. A last\n"
            "record that was cut off is left out and reported, and the exit code is 4. For the dumps\n"
            "of LMDB and Berkeley DB there is kv load.\n"
            "\n"
            "Example:\n"
            "  kv import people.db old/data.log\n"};
