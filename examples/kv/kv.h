/*
 * The parts of the program `kv`, a command-line tool made with nothing but kvstore.h.
 *
 *     main.c       which commands there are; help
 *     args.c       what the command line says
 *     store.c      opening and closing, errors and exit codes
 *     text.c       bytes as text and back: raw, escaped, hexadecimal
 *     output.c     what is printed, checked
 *     progress.c   a bar on a terminal, and Ctrl-C
 *     data.c       get, set, del
 *     scan.c       scan
 *     stats.c      stats
 *     upkeep.c     compact, checkpoint
 *     report.c     verify, salvage, import
 *     dump.c       dump
 *     load.c       load
 *     dumpfile.c   the text format that load reads
 */
#ifndef KV_H
#define KV_H

#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <kvstore.h>

/* What the program returns. They are part of its interface: see `kv help`. */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_NO = 1,         /* not found, or a condition did not hold */
    EXIT_USAGE = 2,      /* the command line makes no sense */
    EXIT_ERROR = 3,
    EXIT_DAMAGED = 4,    /* stored data is damaged */
    EXIT_IN_USE = 5,     /* another process has the database open */
    EXIT_INTERRUPT = 130 /* ended by Ctrl-C, cleanly */
};

/* --- main.c, args.c: commands ------------------------------------------------------------- */

enum { MAX_OPTIONS = 12 };

struct option {
    char letter; /* 0: it has none */
    const char *name;
    const char *value; /* what its value is called; NULL: it takes none */
    const char *help;
};

struct args;

struct command {
    const char *name;
    const char *operands;
    const char *summary;
    int least, most; /* how many operands; most < 0: any number */
    int (*run)(const struct args *args);
    struct option options[MAX_OPTIONS];
    const char *text; /* what `kv help` says after the options */
};

struct args {
    const struct command *command;
    int count;
    char **operands; /* the first is always the database */
    const char *values[MAX_OPTIONS];
};

/* Fills in `args`, whose operands are those of `argv` moved to its beginning. Says what is wrong. */
int parse_args(const struct command *command, int argc, char **argv, struct args *args);
bool has(const struct args *args, const char *option);
/* NULL if the option is not given. */
const char *value_of(const struct args *args, const char *option);
/* The value of an option that is a number; `otherwise` if it is not given. */
int number_of(const struct args *args, const char *option, uint64_t otherwise, uint64_t *number);

extern const struct command get_command, set_command, del_command, scan_command, stats_command, dump_command,
    load_command, import_command, compact_command, checkpoint_command, verify_command, salvage_command;

/* --- store.c: the database, and errors ---------------------------------------------------- */

enum access { READING, WRITING, CREATING };

int open_store(const char *path, enum access access, kv_store **store);
/* Closes, and returns `code`, or what closing says if that is worse. */
int close_store(kv_store *store, int code);
/* Reports the failed call of the library with this status, and returns the exit code for it. */
int failed(int32_t status);
/* Reports what is not the library's message. Returns `code`. */
int complain(int code, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
/* What messages begin with, set once: "kv get". */
void name_program(const char *command);

/* --- text.c: bytes and text --------------------------------------------------------------- */

struct bytes {
    uint8_t *data;
    size_t len, capacity;
};

enum form { RAW, ESCAPED, HEX };

/* Options that choose the form, for the tables of commands. */
#define FORM_OPTIONS                                                                               \
    {'e', "escape", NULL, "keys and values are text with \\xx for any byte and \\\\ for a backslash"},    \
    {'x', "hex", NULL, "keys and values are hexadecimal digits"}

int form_of(const struct args *args, enum form otherwise, enum form *form);
/* The bytes that an argument stands for, to be freed. */
int decode(const char *text, enum form form, struct bytes *bytes);
void print_bytes(FILE *file, enum form form, const uint8_t *data, size_t len);
int hex_digit(int c); /* its value, or -1 */
bool append(struct bytes *bytes, const void *data, size_t len);
bool append_byte(struct bytes *bytes, uint8_t byte);
void free_bytes(struct bytes *bytes);
/* "1.5 MiB" */
const char *size_text(uint64_t size, char text[static 16]);

/* --- output.c ----------------------------------------------------------------------------- */

/* Whether all that was printed so far could be. For loops, which need not go on if not. */
bool output_works(void);
/* Flushes and checks standard output. Returns `code`, or EXIT_ERROR after saying why. */
int finish_output(int code);

/* --- progress.c --------------------------------------------------------------------------- */

struct progress {
    const char *doing;
    bool counts; /* of things, not of bytes */
    bool terminal; /* somebody can see it */
    double began, last;
};

/* A bar on standard error if that is a terminal. From here to the end Ctrl-C asks to stop. */
void begin_progress(struct progress *progress, const char *doing, bool counts);
/* A kv_progress, whose context is a struct progress. A total of 0 is not known. */
int32_t show_progress(void *progress, uint64_t done, uint64_t total);
void end_progress(void);
/* Takes the bar away, for a message. It comes back by itself. */
void hide_progress(void);
bool interrupted(void);

/* --- dumpfile.c --------------------------------------------------------------------------- */

/* A dump, as db_dump, mdb_dump and `kv dump` write it: one or more databases one after another. */
struct dumpfile {
    FILE *file;
    uint64_t line; /* of what is being read, the first is 1 */
    uint64_t bytes; /* read so far */
    bool printable; /* the format of this database */
    bool duplicates; /* a key of this database may have several values */
    char database[256]; /* its name; empty if it has none */
};

enum found { FOUND, END, BAD };

/* Reads a header: FOUND a database, the END of the input, or BAD, which has been reported. */
enum found next_database(struct dumpfile *dump);
/* Reads a record: FOUND, the END of the database, or BAD, which has been reported. */
enum found next_record(struct dumpfile *dump, struct bytes *key, struct bytes *value);

#endif
