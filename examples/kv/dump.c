/* dump: a whole database as text that other stores read. */
#include "kv.h"

#include <string.h>
#include <unistd.h>

enum format { BYTEVALUE, PRINT, RESP };

static int format_of(const struct args *args, enum format *format) {
    const char *name = value_of(args, "format");
    *format = has(args, "print") ? PRINT : BYTEVALUE;
    if (!name) return EXIT_DONE;
    if (strcmp(name, "bytevalue") == 0) {
        *format = BYTEVALUE;
    } else if (strcmp(name, "print") == 0) {
        *format = PRINT;
    } else if (strcmp(name, "resp") == 0) {
        *format = RESP;
    } else {
        return complain(EXIT_USAGE, "--format is bytevalue, print or resp");
    }
    return EXIT_DONE;
}

/*
 * LMDB needs to be told how large its file may grow, and Berkeley DB takes no dump that says so. Only address space is
 * at stake, so there is room for pages that are one third full, the least that LMDB makes of any records.
 */
static uint64_t map_size(const struct kv_stats *stats) {
    uint64_t megabytes = stats->live_bytes / (1 << 20);
    return (64 + 4 * megabytes) << 20;
}

static void print_header(enum format format, bool lmdb, const struct kv_stats *stats) {
    if (format == RESP) return;
    printf("VERSION=3\nformat=%s\ntype=btree\n", format == PRINT ? "print" : "bytevalue");
    if (lmdb) printf("mapsize=%" PRIu64 "\n", map_size(stats));
    printf("HEADER=END\n");
}

static void print_text(enum format format, const uint8_t *data, size_t len) {
    putchar(' ');
    print_bytes(stdout, format == PRINT ? ESCAPED : HEX, data, len);
    putchar('\n');
}

/* A bulk string of the Redis protocol. */
static void print_bulk(const uint8_t *data, size_t len) {
    printf("$%zu\r\n", len);
    print_bytes(stdout, RAW, data, len);
    printf("\r\n");
}

static int32_t print_records(kv_iter *iter, enum format format, uint64_t keys, struct progress *progress) {
    const uint8_t *key, *value;
    size_t key_len, value_len;
    int32_t status = KV_OK;
    for (uint64_t done = 0; status == KV_OK && output_works(); done++) {
        if (done % 256 == 0 && show_progress(progress, done, keys)) return KV_ERR_CANCELLED;
        status = kv_iter_next(iter, &key, &key_len, &value, &value_len);
        if (status != KV_OK) break;
        if (format == RESP) {
            printf("*3\r\n$3\r\nSET\r\n");
            print_bulk(key, key_len);
            print_bulk(value, value_len);
        } else {
            print_text(format, key, key_len);
            print_text(format, value, value_len);
        }
    }
    return status;
}

static int dump_iter(kv_iter *iter, const struct args *args, const struct kv_stats *stats) {
    struct progress progress;
    enum format format;
    int code = format_of(args, &format);
    if (code != EXIT_DONE) return code;
    int32_t status = has(args, "unsorted") ? KV_OK : kv_iter_sort(iter);
    if (status != KV_OK) return failed(status);
    print_header(format, has(args, "lmdb"), stats);
    begin_progress(&progress, "dump", true);
    if (isatty(STDOUT_FILENO)) progress.terminal = false; /* the dump itself is to be seen there */
    status = print_records(iter, format, stats->keys, &progress);
    end_progress();
    if (status == KV_ERR_CANCELLED) return EXIT_INTERRUPT;
    /* Without its end the dump is no dump, so nobody takes it for the whole. */
    if (status < 0) return failed(status);
    if (format != RESP) printf("DATA=END\n");
    return EXIT_DONE;
}

static int dump_store(kv_store *store, const struct args *args) {
    struct kv_stats stats;
    kv_iter *iter;
    int32_t status = kv_stats(store, &stats, sizeof stats);
    if (status == KV_OK) status = kv_iter_new(store, &iter);
    if (status != KV_OK) return failed(status);
    int code = dump_iter(iter, args, &stats);
    kv_iter_free(iter);
    return code;
}

static int run_dump(const struct args *args) {
    kv_store *store;
    enum format format;
    int code = format_of(args, &format);
    if (code == EXIT_DONE) code = open_store(args->operands[0], READING, &store);
    if (code == EXIT_DONE) code = close_store(store, dump_store(store, args));
    return code;
}

const struct command dump_command = {
    .name = "dump",
    .operands = "DB",
    .summary = "write everything as text for LMDB, Berkeley DB, Redis, or kv load",
    .least = 1,
    .most = 1,
    .run = run_dump,
    .options = {{'f', "format", "FORMAT", "bytevalue (hexadecimal, the default), print, or resp (for Redis)"},
                {'p', "print", NULL, "the same as --format=print: text stays readable"},
                {'l', "lmdb", NULL, "say how large the map has to be, as mdb_load wants"},
                {'u', "unsorted", NULL, "in the order of the log: less memory, no sorting"}},
    .text = "The formats bytevalue and print are those of db_dump and mdb_dump. Keys come in ascending\n"
            "order, so that two dumps can be compared. A dump that lacks its last line, DATA=END, is\n"
            "not whole: kv load, db_load and mdb_load say so.\n"
            "\n"
            "LMDB takes no empty key and no key over 511 bytes; Berkeley DB takes no dump that was\n"
            "made with --lmdb.\n"
            "\n"
            "Examples:\n"
            "  kv dump people.db > people.txt\n"
            "  kv dump people.db | db_load copy.bdb\n"
            "  mkdir copy.lmdb && kv dump --lmdb people.db | mdb_load copy.lmdb\n"
            "  kv dump --format=resp people.db | redis-cli --pipe\n"
            "  diff <(kv dump -p monday.db) <(kv dump -p tuesday.db)\n"};
