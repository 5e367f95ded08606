/* Runs an operation many times, on one or many threads, against the clock. */
#include "bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct lane {
    struct worker worker;
    const struct pass *pass;
    void *db;
    size_t first, count, done;
    uint64_t deadline, end;
    struct histogram *times;
    bool failed;
    pthread_t thread;
};

/* Every lane has its session before the clock starts, and all start together. */
static pthread_mutex_t gate_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static int lanes_ready;
static bool gate_open;

static void gate_wait(void)
{
    pthread_mutex_lock(&gate_mutex);
    lanes_ready++;
    pthread_cond_broadcast(&gate_changed);
    while (!gate_open)
        pthread_cond_wait(&gate_changed, &gate_mutex);
    pthread_mutex_unlock(&gate_mutex);
}

static uint64_t gate_release(int lanes)
{
    pthread_mutex_lock(&gate_mutex);
    while (lanes_ready < lanes)
        pthread_cond_wait(&gate_changed, &gate_mutex);
    uint64_t start = now_ns();
    gate_open = true;
    pthread_cond_broadcast(&gate_changed);
    pthread_mutex_unlock(&gate_mutex);
    return start;
}

static bool is_over(const struct lane *lane, size_t i)
{
    const size_t mask = lane->pass->slow_ops ? 0 : 63;
    if ((i & mask) != 0)
        return false;
    if (lane->pass->stop != NULL && __atomic_load_n(lane->pass->stop, __ATOMIC_ACQUIRE))
        return true;
    return lane->deadline != 0 && now_ns() >= lane->deadline;
}

static bool run_one(struct lane *lane, size_t i)
{
    const struct pass *pass = lane->pass;
    size_t at = lane->first + (pass->stop != NULL ? i % lane->count : i);
    uint32_t entry = pass->plan ? pass->plan[at] : (uint32_t)at;
    uint32_t record = entry & ~WRITE_BIT;
    lane->worker.write = (entry & WRITE_BIT) != 0;
    if (lane->times == NULL)
        return pass->op(&lane->worker, record) == BENCH_OK;
    uint64_t start = now_ns();
    bool fine = pass->op(&lane->worker, record) == BENCH_OK;
    histogram_add(lane->times, now_ns() - start);
    return fine;
}

static void *run_lane(void *arg)
{
    struct lane *lane = arg;
    const struct driver *driver = lane->worker.task->driver;
    lane->worker.session = driver->begin ? driver->begin(lane->db) : lane->db;
    gate_wait();
    lane->failed = lane->worker.session == NULL;
    if (lane->pass->seconds > 0)
        lane->deadline = now_ns() + (uint64_t)(lane->pass->seconds * 1e9);
    size_t i = 0;
    while (!lane->failed && (i < lane->count || lane->pass->stop) && !is_over(lane, i))
        lane->failed = !run_one(lane, i++);
    lane->done = i;
    lane->end = now_ns();
    if (driver->end && lane->worker.session)
        driver->end(lane->worker.session);
    return NULL;
}

static void verify_sample(struct lane *lane)
{
    const struct driver *driver = lane->worker.task->driver;
    size_t step = lane->done / 1000 + 1;
    lane->worker.session = driver->begin ? driver->begin(lane->db) : lane->db;
    size_t count = lane->done < lane->count ? lane->done : lane->count;
    for (size_t i = 0; i < count; i += step) {
        size_t at = lane->first + i;
        uint32_t record = lane->pass->plan ? lane->pass->plan[at] & ~WRITE_BIT : (uint32_t)at;
        if (lane->pass->verify(&lane->worker, record) != BENCH_OK)
            lane->failed = true;
    }
    if (driver->end)
        driver->end(lane->worker.session);
}

static void emit_times(const char *name, const struct histogram *h)
{
    emit(name, "p50_ns", histogram_quantile(h, 0.50));
    emit(name, "p99_ns", histogram_quantile(h, 0.99));
    emit(name, "p99.9_ns", histogram_quantile(h, 0.999));
    emit(name, "max_ns", histogram_quantile(h, 1.0));
}

static void lane_prepare(struct lane *lane, const struct task *task, void *db,
                         const struct pass *pass, int index)
{
    lane->pass = pass;
    lane->db = db;
    lane->first = pass->count * (size_t)index / (size_t)pass->threads;
    lane->count = pass->count * (size_t)(index + 1) / (size_t)pass->threads - lane->first;
    lane->times = task->latency ? histogram_new() : NULL;
    lane->worker.task = task;
    lane->worker.rng = mix64((uint64_t)index + 1);
    lane->worker.buf = malloc(task->setup.value_size + 1);
    if (lane->worker.buf == NULL)
        die("out of memory");
}

void run_pass(const struct task *task, void *db, const struct pass *pass)
{
    announce(pass->name);
    struct lane *lanes = calloc((size_t)pass->threads, sizeof *lanes);
    if (lanes == NULL)
        die("out of memory");
    lanes_ready = 0;
    gate_open = false;
    for (int i = 0; i < pass->threads; i++) {
        lane_prepare(&lanes[i], task, db, pass, i);
        if (pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]) != 0)
            die("pthread_create");
    }
    double cpu = cpu_seconds();
    uint64_t start = gate_release(pass->threads), end = start;
    size_t done = 0;
    for (int i = 0; i < pass->threads; i++) {
        pthread_join(lanes[i].thread, NULL);
        done += lanes[i].done;
        if (lanes[i].end > end)
            end = lanes[i].end;
    }
    cpu = cpu_seconds() - cpu;

    bool failed = false;
    for (int i = 0; i < pass->threads; i++) {
        if (pass->verify)
            verify_sample(&lanes[i]);
        failed |= lanes[i].failed;
        if (i > 0 && task->latency)
            histogram_merge(lanes[0].times, lanes[i].times);
    }
    if (failed)
        die(pass->name);
    if (pass->silent) {
        /* not a result */
    } else if (task->latency) {
        emit_times(pass->name, lanes[0].times);
    } else if (done > 0) {
        emit(pass->name, "ops_s", (double)done * 1e9 / (double)(end - start));
        emit(pass->name, "cpu_ns", cpu * 1e9 / (double)done);
    }
    for (int i = 0; i < pass->threads; i++) {
        free(lanes[i].times);
        free(lanes[i].worker.buf);
    }
    free(lanes);
}
