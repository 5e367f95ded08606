/*
 * The text that db_dump, mdb_dump and `kv dump` write, and db_load, mdb_load and `kv load` read:
 *
 *     VERSION=3
 *     format=bytevalue         or print: printable characters, \xx for other bytes, \\ for a backslash
 *     type=btree               and more NAME=VALUE, which are about how that database was laid out
 *     HEADER=END
 *      6b6579                  a key, after a blank
 *      76616c7565              its value
 *     DATA=END
 *
 * Read byte by byte into the record itself: a line of a text of hexadecimal digits would be twice as long.
 */
#include "kv.h"

#include <errno.h>
#include <string.h>

/* --- Characters --------------------------------------------------------------------------- */

static int next_char(struct dumpfile *dump) {
    int c = getc_unlocked(dump->file);
    if (c != EOF) dump->bytes++;
    return c;
}

static enum found bad(const struct dumpfile *dump, const char *what) {
    complain(EXIT_ERROR, "line %" PRIu64 ": %s", dump->line, what);
    return BAD;
}

/* The input ended where it should not. */
static enum found cut_off(const struct dumpfile *dump) {
    if (!ferror(dump->file)) return bad(dump, "the input ends before DATA=END");
    if (!interrupted()) complain(EXIT_ERROR, "line %" PRIu64 ": %s", dump->line, strerror(errno));
    return BAD;
}

/* A line that is not a record, without its end. */
static enum found read_line(struct dumpfile *dump, char *text, size_t size) {
    size_t len = 0;
    int c;
    dump->line++;
    while ((c = next_char(dump)) != EOF && c != '\n') {
        if (len + 1 == size || c == '\0') return bad(dump, "not a line of the header");
        text[len++] = (char)c;
    }
    text[len] = '\0';
    if (c != EOF) return FOUND;
    return len == 0 && !ferror(dump->file) ? END : cut_off(dump);
}

/* --- The header --------------------------------------------------------------------------- */

static bool is_pairs(const char *type) {
    return strcmp(type, "btree") == 0 || strcmp(type, "hash") == 0;
}

/* One line, NAME=VALUE, cut at the sign. What only says how the other store was laid out is passed over. */
static enum found take_setting(struct dumpfile *dump, const char *name, const char *value) {
    if (strcmp(name, "format") == 0) {
        dump->printable = strcmp(value, "print") == 0;
        if (!dump->printable && strcmp(value, "bytevalue") != 0) return bad(dump, "this format is not known");
    } else if (strcmp(name, "type") == 0) {
        if (!is_pairs(value)) return bad(dump, "a database of this type has no keys; btree and hash have");
    } else if (strcmp(name, "keys") == 0) {
        if (strcmp(value, "1") != 0) return bad(dump, "this is a dump without keys");
    } else if (strcmp(name, "duplicates") == 0) {
        dump->duplicates = strcmp(value, "0") != 0;
    } else if (strcmp(name, "database") == 0) {
        if (strlen(value) >= sizeof dump->database) return bad(dump, "the name of the database is too long");
        strcpy(dump->database, value);
    }
    return FOUND;
}

enum found next_database(struct dumpfile *dump) {
    char text[4096];
    dump->printable = dump->duplicates = false;
    dump->database[0] = '\0';
    enum found found = read_line(dump, text, sizeof text);
    if (found != FOUND) return found;
    if (strcmp(text, "VERSION=3") != 0) return bad(dump, "not a dump: it does not begin with VERSION=3");
    for (;;) {
        found = read_line(dump, text, sizeof text);
        if (found != FOUND) return found == END ? cut_off(dump) : BAD;
        if (strcmp(text, "HEADER=END") == 0) return FOUND;
        char *sign = strchr(text, '=');
        if (!sign) return bad(dump, "a line of the header has no =");
        *sign = '\0';
        if (take_setting(dump, text, sign + 1) != FOUND) return BAD;
    }
}

/* --- Records ------------------------------------------------------------------------------ */

/* The second of two digits, of which the first is `high`. */
static int pair(struct dumpfile *dump, int high) {
    int low = hex_digit(high) < 0 ? -1 : hex_digit(next_char(dump));
    return low < 0 ? -1 : hex_digit(high) << 4 | low;
}

static enum found read_bytes(struct dumpfile *dump, struct bytes *bytes) {
    int c;
    bytes->len = 0;
    while ((c = next_char(dump)) != EOF && c != '\n') {
        if (!dump->printable) {
            c = pair(dump, c);
        } else if (c == '\\' && (c = next_char(dump)) != '\\') {
            c = pair(dump, c);
        }
        if (c < 0 && (feof(dump->file) || ferror(dump->file))) break;
        if (c < 0) {
            return bad(dump, dump->printable ? "a backslash without two hexadecimal digits (if mdb_dump -p wrote "
                                               "it: it does not mark backslashes, dump without -p)"
                                             : "not pairs of hexadecimal digits");
        }
        if (bytes->len == KV_MAX_VALUE_LEN) return bad(dump, "longer than a value may be");
        if (!append_byte(bytes, (uint8_t)c)) return bad(dump, "out of memory");
    }
    return feof(dump->file) || ferror(dump->file) ? cut_off(dump) : FOUND;
}

/* A key or a value: FOUND, or the END of the database. */
static enum found read_item(struct dumpfile *dump, struct bytes *bytes) {
    char text[32];
    int c = next_char(dump);
    if (c == ' ') {
        dump->line++;
        return read_bytes(dump, bytes);
    }
    if (c == EOF) {
        dump->line++;
        return cut_off(dump);
    }
    ungetc(c, dump->file);
    dump->bytes--;
    if (read_line(dump, text, sizeof text) != FOUND) return BAD;
    if (strcmp(text, "DATA=END") == 0) return END;
    return bad(dump, "neither a blank and data nor DATA=END");
}

enum found next_record(struct dumpfile *dump, struct bytes *key, struct bytes *value) {
    enum found found = read_item(dump, key);
    if (found != FOUND) return found;
    found = read_item(dump, value);
    return found == END ? bad(dump, "the last key has no value") : found;
}
