/* What one child process does with one store: fill a fresh database, then measure on it. */
#include "bench.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* ---- Passes --------------------------------------------------------------------------------- */

/* A pass over all records in a random order of its own. */
static void pass_random(const struct task *task, void *db, const char *name, op_fn *op,
                        op_fn *verify)
{
    if (!in_list(task->workloads, name))
        return;
    uint64_t seed = 0;
    for (const char *c = name; *c; c++)
        seed = mix64(seed + (unsigned char)*c);
    uint32_t *plan = plan_shuffled(task->setup.records, seed);
    run_pass(task, db, &(struct pass){ .name = name, .op = op, .verify = verify, .plan = plan,
                                       .count = task->setup.records, .threads = task->threads,
                                       .seconds = task->seconds });
    free(plan);
}

static void pass_ycsb(const struct task *task, void *db, const char *name, op_fn *op,
                      unsigned write_percent)
{
    if (!in_list(task->workloads, name))
        return;
    const size_t records = task->setup.records;
    uint32_t *plan = plan_zipfian(records, records, write_percent, 42);
    run_pass(task, db, &(struct pass){ .name = name, .op = op, .plan = plan, .count = records,
                                       .threads = task->threads, .seconds = task->seconds });
    free(plan);
}

/* Reads the records within the time of a pass, the newest first: those a store could have lost.
 * No result of its own. */
static void check_newest(const struct task *task, void *db)
{
    const size_t records = task->setup.records;
    uint32_t *plan = plan_shuffled(records, 0);
    for (size_t i = 0; i < records; i++)
        plan[i] = (uint32_t)(records - 1 - i);
    run_pass(task, db, &(struct pass){ .name = "(check)", .op = get_any, .plan = plan,
                                       .count = records, .threads = 1,
                                       .seconds = task->seconds, .silent = true });
    free(plan);
}

/* Rates are in records, not batches. */
static void fill_in_batches(const struct task *task, void *db, bool measured)
{
    struct worker w = { .task = task };
    const struct driver *driver = task->driver;
    const size_t batches = (task->setup.records + BATCH_SIZE - 1) / BATCH_SIZE;
    announce(measured ? "batch" : "(fill)");
    if ((w.session = driver->begin ? driver->begin(db) : db) == NULL)
        die("session");
    double cpu = cpu_seconds();
    uint64_t start = now_ns();
    for (size_t i = 0; i < batches; i++)
        if (set_batch(&w, i) != BENCH_OK)
            die("batch");
    if (measured) {
        const double records = (double)task->setup.records;
        emit("batch", "ops_s", records * 1e9 / (double)(now_ns() - start));
        emit("batch", "cpu_ns", (cpu_seconds() - cpu) * 1e9 / records);
    }
    if (driver->end)
        driver->end(w.session);
}

struct sum { uint64_t value, records; };

static void add_record(void *arg, const void *key, size_t key_len, const void *value,
                       size_t value_len)
{
    struct sum *sum = arg;
    uint64_t first, last;
    memcpy(&first, value, sizeof first);
    memcpy(&last, (const char *)value + value_len - sizeof last, sizeof last);
    sum->value += first ^ last;
    memcpy(&first, key, sizeof first);
    sum->value += first ^ key_len ^ value_len;
    sum->records++;
}

/* All keys and values; both are looked at, and none may be missing or there twice. */
static void pass_iterate(const struct task *task, void *db)
{
    const struct driver *driver = task->driver;
    const size_t records = task->setup.records, value_size = task->setup.value_size;
    if (!in_list(task->workloads, "iterate") || driver->iterate == NULL || task->latency
        || value_size < 8)
        return;
    struct sum wanted = { 0, 0 }, found = { 0, 0 };
    for (size_t i = 0; i < records; i++) {
        unsigned char key[KEY_SIZE];
        make_key(i, key);
        add_record(&wanted, key, KEY_SIZE, make_value(key, 0), value_size);
    }
    announce("iterate");
    void *session = driver->begin ? driver->begin(db) : db;
    double cpu = cpu_seconds();
    uint64_t start = now_ns();
    if (session == NULL || driver->iterate(session, add_record, &found) != BENCH_OK)
        die("iterate");
    uint64_t end = now_ns();
    emit("iterate", "ops_s", (double)records * 1e9 / (double)(end - start));
    emit("iterate", "cpu_ns", (cpu_seconds() - cpu) * 1e9 / (double)records);
    if (driver->end)
        driver->end(session);
    if (found.records != wanted.records || found.value != wanted.value)
        die("iterate: not the records that were stored");
}

static void *open_or_die(const struct task *task)
{
    void *db = task->driver->open(&task->setup);
    if (db == NULL)
        die("open");
    return db;
}

static void close_or_die(const struct task *task, void *db)
{
    if (!task->driver->close(db))
        die("close");
}

/* ---- Steps ---------------------------------------------------------------------------------- */

static void pass_fill(const struct task *task, void *db)
{
    run_pass(task, db, &(struct pass){ .name = "fill", .op = set_first, .verify = get_any,
                                       .count = task->setup.records, .threads = task->threads });
}

static void emit_memory(const char *workload, struct memory before, size_t records)
{
    struct memory after = memory_now();
    emit(workload, "rss_per_key", (after.resident - before.resident) / (double)records);
    emit(workload, "anon_per_key", (after.anonymous - before.anonymous) / (double)records);
}

static void emit_disk(const char *workload, const struct task *task)
{
    const double records = (double)task->setup.records;
    emit(workload, "disk_per_key", tree_disk_bytes(task->setup.dir, "") / records);
    if (task->driver->derived != NULL)
        emit(workload, "derived_per_key",
             tree_disk_bytes(task->setup.dir, task->driver->derived) / records);
}

/* Point reads and writes on one database. Reads that depend on the first values come first. */
static void step_point(const struct task *task)
{
    struct memory before = memory_now();
    void *db = open_or_die(task);
    if (in_list(task->workloads, "fill")) {
        pass_fill(task, db);
        if (!task->latency)
            emit_memory("fill", before, task->setup.records);
    } else {
        fill_in_batches(task, db, false);
    }
    pass_random(task, db, "get", get_any, NULL);
    pass_random(task, db, "absent", get_absent, NULL);
    if (task->threads == 1)
        pass_iterate(task, db);
    pass_ycsb(task, db, "ycsb-c", get_any, 0);
    pass_ycsb(task, db, "ycsb-b", read_or_update, 5);
    pass_ycsb(task, db, "ycsb-a", read_or_update, 50);
    pass_ycsb(task, db, "ycsb-f", read_or_modify, 50);
    pass_random(task, db, "overwrite", set_second, get_second);
    pass_random(task, db, "delete", delete_one, get_deleted);
    close_or_die(task, db);
}

static void step_batch(const struct task *task)
{
    if (task->driver->batch == NULL)
        return;
    void *db = open_or_die(task);
    fill_in_batches(task, db, true);
    check_newest(task, db);
    close_or_die(task, db);
}

/* Writers that wait for the disk: new records until the time is over. */
static void step_synced(const struct task *task)
{
    void *db = open_or_die(task);
    run_pass(task, db, &(struct pass){ .name = "synced", .op = set_first, .verify = get_any,
                                       .count = 1u << 30, .threads = task->threads,
                                       .seconds = task->seconds, .slow_ops = true });
    close_or_die(task, db);
}

struct compaction {
    const struct task *task;
    void *db;
    int done;
    uint64_t ns;
};

static void *compact_aside(void *arg)
{
    struct compaction *c = arg;
    uint64_t start = now_ns();
    if (c->task->driver->compact(c->db) != BENCH_OK)
        die("compact");
    c->ns = now_ns() - start;
    __atomic_store_n(&c->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Three overwrites of everything, then a compaction beside a writer, then one alone. */
static void step_churn(const struct task *task)
{
    const size_t records = task->setup.records;
    void *db = open_or_die(task);
    fill_in_batches(task, db, false);
    uint32_t *plan = plan_shuffled(3 * records, 7);
    for (size_t i = 0; i < 3 * records; i++)
        plan[i] %= (uint32_t)records;
    struct pass pass = { .name = "churn", .op = set_any, .verify = get_any, .plan = plan,
                         .count = 3 * records, .threads = 1 };
    run_pass(task, db, &pass);
    if (!task->latency)
        emit_disk("churn", task);
    if (task->driver->compact != NULL) {
        struct compaction compaction = { .task = task, .db = db };
        pthread_t thread;
        if (pthread_create(&thread, NULL, compact_aside, &compaction) != 0)
            die("pthread_create");
        pass.name = "set+compact";
        pass.stop = &compaction.done;
        run_pass(task, db, &pass);
        pthread_join(thread, NULL);

        announce("compact");
        compact_aside(&compaction);
        if (!task->latency)
            emit("compact", "ns", (double)compaction.ns);
    }
    close_or_die(task, db);
    if (task->driver->compact != NULL && !task->latency)
        emit_disk("compact", task);
    free(plan);
}

/* Opening is over when the first record has been read: some stores put work off until then. */
static void *timed_open(const struct task *task, const char *name)
{
    announce(name);
    struct memory before = memory_now();
    uint64_t start = now_ns();
    void *db = open_or_die(task);
    struct worker w = { .task = task, .buf = malloc(task->setup.value_size + 1) };
    w.session = task->driver->begin ? task->driver->begin(db) : db;
    bool found = w.session != NULL && get_any(&w, 0) == BENCH_OK;
    uint64_t end = now_ns();
    if (!found)
        die("the first record is lost");
    if (task->driver->end)
        task->driver->end(w.session);
    free(w.buf);
    emit(name, "ns", (double)(end - start));
    emit_memory(name, before, task->setup.records);
    return db;
}

/* Ends by SIGKILL, so all that was acknowledged must be there for the next step. */
static void step_kill(const struct task *task)
{
    void *db = open_or_die(task);
    fill_in_batches(task, db, false);
    (void)db;
    fflush(stdout);
    raise(SIGKILL);
}

static void step_open_killed(const struct task *task)
{
    void *db = timed_open(task, "open-killed");
    check_newest(task, db);
    close_or_die(task, db);
}

/* The reads after dropping the cache are few, so that nearly each of them has to go to the disk. */
static void step_open_clean(const struct task *task)
{
    void *db = timed_open(task, "open-clean");
    close_or_die(task, db);
    emit_disk("open-clean", task);
    if (!in_list(task->workloads, "cold-get"))
        return;
    tree_drop_cache(task->setup.dir);
    db = open_or_die(task);
    uint32_t *plan = plan_shuffled(task->setup.records, 3);
    run_pass(task, db, &(struct pass){ .name = "cold-get", .op = get_any, .plan = plan,
                                       .count = task->setup.records / 100 + 1,
                                       .threads = task->threads });
    free(plan);
    close_or_die(task, db);
}

int run_step(const char *step, const struct task *task)
{
    static const struct { const char *name; void (*run)(const struct task *); } steps[] = {
        { "point", step_point }, { "batch", step_batch }, { "synced", step_synced },
        { "churn", step_churn }, { "kill", step_kill },
        { "open-killed", step_open_killed }, { "open-clean", step_open_clean },
    };
    data_init(task->setup.value_size);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (strcmp(step, steps[i].name) == 0) {
            steps[i].run(task);
            return 0;
        }
    return 2;
}
