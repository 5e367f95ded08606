/*
 * load: takes in a dump of LMDB, of Berkeley DB or of our own, in batches, of which each is stored whole or not at all.
 */
#include "kv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BATCH_BYTES = 1 << 20, SEEN_SLOTS = 1 << 16 };

struct load {
    kv_store *store;
    kv_batch *batch;
    struct dumpfile dump;
    struct progress progress;
    uint64_t size; /* of the input; 0 if it is not known */
    size_t waiting; /* bytes in the batch */
    uint64_t stored, kept;
    bool keep, last, sync;
    struct bytes key, value, previous;
    bool has_previous;
    uint32_t *seen; /* for `keep`: hashes of the keys in the batch; 0 is an empty slot */
};

/* --- Storing ------------------------------------------------------------------------------ */

static int write_batch(struct load *load) {
    size_t count = kv_batch_len(load->batch);
    if (count == 0) return EXIT_DONE;
    int32_t status = kv_write(load->store, load->batch);
    if (status == KV_OK && load->sync) status = kv_sync(load->store);
    if (status == KV_OK) status = kv_batch_clear(load->batch);
    if (status != KV_OK) return failed(status);
    load->stored += count;
    load->waiting = 0;
    if (load->seen) memset(load->seen, 0, SEEN_SLOTS * sizeof *load->seen);
    return EXIT_DONE;
}

static uint32_t hash(const struct bytes *key) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < key->len; i++) hash = (hash ^ key->data[i]) * 16777619u;
    return hash ? hash : 1;
}

/* Whether the batch may hold the key already. A full table is a yes as well: then the batch is stored. */
static bool may_wait(struct load *load, uint32_t hash) {
    for (uint32_t probe = 0; probe < 64; probe++) {
        uint32_t *slot = &load->seen[(hash + probe) % SEEN_SLOTS];
        if (*slot == hash) return true;
        if (*slot == 0) {
            *slot = hash;
            return false;
        }
    }
    return true;
}

/* Whether the key is there already, in the store or earlier in this input: then it keeps its value. */
static int look_up(struct load *load, bool *there) {
    *there = false;
    if (!load->keep) return EXIT_DONE;
    if (may_wait(load, hash(&load->key))) {
        int code = write_batch(load);
        if (code != EXIT_DONE) return code;
        may_wait(load, hash(&load->key));
    }
    int32_t status = kv_exists(load->store, load->key.data, load->key.len);
    *there = status == KV_OK;
    return status < 0 ? failed(status) : EXIT_DONE;
}

static int store_record(struct load *load) {
    size_t size = load->key.len + load->value.len;
    bool there;
    int code = look_up(load, &there);
    if (code != EXIT_DONE) return code;
    if (there) {
        load->kept++;
        return EXIT_DONE;
    }
    if (load->waiting + size > BATCH_BYTES) code = write_batch(load);
    if (code != EXIT_DONE) return code;
    int32_t status = kv_batch_set(load->batch, load->key.data, load->key.len, load->value.data, load->value.len);
    if (status != KV_OK) return failed(status);
    load->waiting += size;
    return EXIT_DONE;
}

/* --- Reading ------------------------------------------------------------------------------ */

/* A database with duplicates may hold several values of a key, one after another. We hold one. */
static int check_duplicate(struct load *load) {
    bool same = load->has_previous && load->previous.len == load->key.len &&
                (load->key.len == 0 || memcmp(load->previous.data, load->key.data, load->key.len) == 0);
    if (same && !load->keep && !load->last) {
        return complain(EXIT_ERROR, "line %" PRIu64 ": another value of the key before; --no-overwrite takes the "
                        "first value of each key, --last the last", load->dump.line - 1);
    }
    load->previous.len = 0;
    if (!append(&load->previous, load->key.data, load->key.len)) return complain(EXIT_ERROR, "out of memory");
    load->has_previous = true;
    return EXIT_DONE;
}

/* The code after BAD, which Ctrl-C is for the reader too. */
static int stopped(void) {
    return interrupted() ? EXIT_INTERRUPT : EXIT_ERROR;
}

static int load_records(struct load *load, bool chosen) {
    enum found found;
    load->has_previous = false;
    while ((found = next_record(&load->dump, &load->key, &load->value)) == FOUND) {
        int code = EXIT_DONE;
        if (show_progress(&load->progress, load->dump.bytes, load->size)) return EXIT_INTERRUPT;
        if (chosen && load->dump.duplicates) code = check_duplicate(load);
        if (code == EXIT_DONE && chosen) code = store_record(load);
        if (code != EXIT_DONE) return code;
    }
    if (found == BAD) return stopped();
    return write_batch(load);
}

/* Loads the database of this name; any, if it is the only one, without a name. */
static int load_databases(struct load *load, const char *name) {
    enum found found = FOUND; /* the first header has been read */
    int matches = 0;
    for (int databases = 0; found == FOUND; found = next_database(&load->dump)) {
        bool chosen = !name || strcmp(load->dump.database, name) == 0;
        databases++;
        matches += chosen;
        if (!name && databases > 1) {
            return complain(EXIT_ERROR, "line %" PRIu64 ": the input holds another database, \"%s\", which was not "
                            "loaded; choose one with --database", load->dump.line, load->dump.database);
        }
        int code = load_records(load, chosen);
        if (code != EXIT_DONE) return code;
    }
    if (found == BAD) return stopped();
    if (matches == 0) return complain(EXIT_NO, "the input holds no database \"%s\"", name);
    return EXIT_DONE;
}

/* --- The command -------------------------------------------------------------------------- */

static int begin_load(struct load *load, const struct args *args) {
    struct stat input;
    if (fstat(fileno(load->dump.file), &input) == 0 && S_ISREG(input.st_mode)) load->size = (uint64_t)input.st_size;
    load->keep = has(args, "no-overwrite");
    load->last = has(args, "last");
    load->sync = has(args, "sync");
    if (load->keep && !(load->seen = calloc(SEEN_SLOTS, sizeof *load->seen))) {
        return complain(EXIT_ERROR, "out of memory");
    }
    /* What is no dump at all creates no database. */
    enum found found = next_database(&load->dump);
    if (found == END) return complain(EXIT_ERROR, "the input is empty");
    if (found == BAD) return EXIT_ERROR;
    int32_t status = kv_batch_new(&load->batch);
    return status == KV_OK ? open_store(args->operands[0], CREATING, &load->store) : failed(status);
}

static int load_from(FILE *file, const struct args *args) {
    struct load load = {.dump = {.file = file}};
    int code = begin_load(&load, args);
    if (code == EXIT_DONE) {
        begin_progress(&load.progress, "load", false);
        code = load_databases(&load, value_of(args, "database"));
        end_progress();
        printf("%" PRIu64 " records stored", load.stored);
        if (load.keep) printf(", %" PRIu64 " left out", load.kept);
        putchar('\n');
        if (code == EXIT_DONE && load.kept) code = EXIT_NO;
        code = close_store(load.store, code);
    }
    kv_batch_free(load.batch);
    free_bytes(&load.key);
    free_bytes(&load.value);
    free_bytes(&load.previous);
    free(load.seen);
    return code;
}

static int run_load(const struct args *args) {
    const char *path = args->count > 1 ? args->operands[1] : "-";
    if (strcmp(path, "-") == 0) return load_from(stdin, args);
    FILE *file = fopen(path, "r");
    if (!file) return complain(EXIT_ERROR, "%s: %s", path, strerror(errno));
    int code = load_from(file, args);
    fclose(file);
    return code;
}

const struct command load_command = {
    .name = "load",
    .operands = "DB [FILE]",
    .summary = "take in a dump of LMDB, Berkeley DB or kv dump",
    .least = 1,
    .most = 2,
    .run = run_load,
    .options = {{'d', "database", "NAME", "of several databases in the input, take this one"},
                {'n', "no-overwrite", NULL, "leave out keys that are there already; exit code 1 if there are any"},
                {0, "last", NULL, "where a key has several values, take the last instead of failing"},
                {0, "sync", NULL, "sync each batch: less is to be done again after a power cut"}},
    .text = "Reads standard input without FILE. The database is created if there is none; other keys\n"
            "in it stay. Records are stored in batches of about 1 MiB, each whole or not at all. If a\n"
            "line is not right, the batches before it are stored, the rest is not, and the message\n"
            "says which line it is.\n"
            "\n"
            "A database of LMDB or Berkeley DB may hold several values of one key (duplicates=1).\n"
            "kv keeps one: --no-overwrite the first, --last the last. mdb_dump -p does not mark\n"
            "backslashes; dump LMDB without -p.\n"
            "\n"
            "Examples:\n"
            "  mdb_dump people.lmdb | kv load people.db\n"
            "  db_dump people.bdb | kv load people.db\n"
            "  mdb_dump -a app.lmdb | kv load --database users users.db\n"
            "  kv load people.db people.txt\n"};
