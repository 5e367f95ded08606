/*
 * The yardstick: one program that does the same work with several embedded stores, on Linux.
 *
 *   main.c        the command line, and turns: each store runs each step in a process of its own
 *   steps.c       what such a process does: fill a database, then measure on it
 *   operations.c  set, get and the like, each checking what it got
 *   loop.c        runs an operation many times, on one or many threads, against the clock
 *   data.c        keys, values that can be checked, access orders
 *   measure.c     latency histogram, memory, disk
 *   talk.c        what a child process tells its parent
 *   report.c      medians, ratios, tables, the TSV file
 *   drivers.c     the stores known to this build; driver_*.c holds one store each
 *   floor.c       a second program: what the machine itself needs for such work
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define KEY_SIZE 16
#define BATCH_SIZE 1000

/* What a driver's operations return. */
enum { BENCH_OK = 0, BENCH_ABSENT = 1, BENCH_FAILED = -1 };

/* ---- A store behind one interface ---------------------------------------------------------- */

/* What a driver may know when it opens: no more than an application that sizes its store would. */
struct setup {
    const char *dir;    /* an existing directory of the store's own */
    size_t records;     /* about so many will be stored */
    size_t value_size;  /* and each value has this size */
    bool synced;        /* acknowledged writes survive power loss, else the death of the process */
    unsigned variant;   /* copied from the driver */
};

struct pair {
    unsigned char key[KEY_SIZE];
    const unsigned char *value; /* setup.value_size bytes */
};

typedef void visit_fn(void *arg, const void *key, size_t key_len, const void *value,
                      size_t value_len);

/* Operations get a session: one a thread, or the database itself where begin is NULL.
 * A get leaves the value in the caller's buffer, by the cheapest call that the store has for it. */
struct driver {
    const char *name;
    const char *settings;        /* as its documentation advises, for the reader of the results */
    const char *synced_settings; /* what differs for writes that survive power loss */
    const char *derived;         /* end of name of files made from the others, or NULL */
    unsigned variant;
    bool extra;                  /* runs only if asked for by name */
    const char *(*version)(void);
    void *(*open)(const struct setup *setup);
    bool (*close)(void *db);
    void *(*begin)(void *db);
    void (*end)(void *session);
    int (*set)(void *session, const void *key, const void *value, size_t value_len);
    int (*get)(void *session, const void *key, void *buf, size_t cap, size_t *value_len);
    int (*del)(void *session, const void *key);
    int (*batch)(void *session, const struct pair *pairs, size_t count, size_t value_len);
    int (*iterate)(void *session, visit_fn *visit, void *arg);
    int (*compact)(void *db);    /* NULL where the store has nothing like it online */
};

struct known_driver {
    const char *name;            /* also when it is not compiled in */
    const struct driver *driver; /* NULL: the library was not found */
};
extern const struct known_driver known_drivers[]; /* ends with a NULL name */
const struct driver *find_driver(const char *name);

/* ---- data.c -------------------------------------------------------------------------------- */

#define VERSIONS 4 /* a record's value exists in so many versions, each told from the others */

void data_init(size_t value_size);
uint64_t mix64(uint64_t x);
void make_key(uint64_t record, unsigned char key[KEY_SIZE]);
const unsigned char *make_value(const unsigned char key[KEY_SIZE], unsigned version);
int value_version(const unsigned char key[KEY_SIZE], const void *value, size_t len); /* -1: none */

#define WRITE_BIT UINT32_C(0x80000000) /* in a plan: this operation writes */
uint32_t *plan_shuffled(size_t records, uint64_t seed);
uint32_t *plan_zipfian(size_t count, size_t records, unsigned write_percent, uint64_t seed);

/* ---- measure.c ----------------------------------------------------------------------------- */

uint64_t now_ns(void);
double cpu_seconds(void);

struct memory { double resident, anonymous; };
struct memory memory_now(void);

struct histogram;
struct histogram *histogram_new(void);
void histogram_add(struct histogram *h, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *from);
double histogram_quantile(const struct histogram *h, double q); /* 1.0: the greatest */

double tree_disk_bytes(const char *dir, const char *suffix); /* files with that end of name */
void tree_remove(const char *dir);
void tree_drop_cache(const char *dir);

/* ---- steps.c, loop.c, operations.c --------------------------------------------------------- */

struct task {
    const struct driver *driver;
    struct setup setup;
    const char *workloads; /* comma-separated */
    int threads;
    double seconds;        /* a pass over existing records ends after this, done or not */
    bool latency;          /* time each operation instead of all of them */
};

int run_step(const char *step, const struct task *task);

struct worker {
    const struct task *task;
    void *session;
    bool write;         /* the plan says that this operation writes */
    uint64_t rng;
    unsigned char *buf; /* room for one value */
};
typedef int op_fn(struct worker *worker, uint64_t record);

struct pass {
    const char *name;
    op_fn *op;
    op_fn *verify;          /* run on a sample of what was done, after the clock has stopped */
    const uint32_t *plan;   /* records in order of access; NULL: 0, 1, 2 ... */
    size_t count;
    int threads;
    double seconds;         /* 0: to the end of the plan */
    bool slow_ops;          /* look at the clock at every operation */
    bool silent;            /* a check only: no result rows */
    const int *stop;        /* if set, the pass repeats its plan until this is not 0 */
};
void run_pass(const struct task *task, void *db, const struct pass *pass);

op_fn set_first, set_second, set_any, get_any, get_second, get_absent, get_deleted, delete_one;
op_fn read_or_update, read_or_modify;
op_fn set_batch; /* the record's number is that of a batch */

/* ---- talk.c -------------------------------------------------------------------------------- */

void emit(const char *workload, const char *metric, double value);
void announce(const char *workload);
void die(const char *what) __attribute__((noreturn));
int complain(const char *store, const char *call, const char *why); /* returns BENCH_FAILED */
bool in_list(const char *list, const char *name);

/* ---- report.c ------------------------------------------------------------------------------ */

struct row {
    char store[32], workload[24], metric[24];
    size_t value_size, records;
    int threads, round;
    double value;
};
bool report_open(const char *tsv, const char *machine);
void report_settings(const struct driver *driver);
void report_add(const struct row *row);
void report_print(void);
void describe_machine(char *text, size_t cap, const char *dir);

#endif
