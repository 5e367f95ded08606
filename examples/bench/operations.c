/* The operations that are timed, and those that verify afterwards. Each checks what it got. */
#include "bench.h"

#define ABSENT_BASE (UINT64_C(1) << 40) /* records that are never stored */

static int set_version(struct worker *w, uint64_t record, unsigned version)
{
    unsigned char key[KEY_SIZE];
    make_key(record, key);
    return w->task->driver->set(w->session, key, make_value(key, version),
                                w->task->setup.value_size);
}

/* The version found, or -1 if the record is absent or has bytes that were never written. */
static int get_version(struct worker *w, uint64_t record)
{
    unsigned char key[KEY_SIZE];
    size_t len = 0;
    make_key(record, key);
    if (w->task->driver->get(w->session, key, w->buf, w->task->setup.value_size + 1, &len)
        != BENCH_OK)
        return -1;
    return value_version(key, w->buf, len);
}

int set_first(struct worker *w, uint64_t record)
{
    return set_version(w, record, 0);
}

int set_second(struct worker *w, uint64_t record)
{
    return set_version(w, record, 1);
}

int set_any(struct worker *w, uint64_t record)
{
    return set_version(w, record, (w->rng = mix64(w->rng)) % VERSIONS);
}

int get_any(struct worker *w, uint64_t record)
{
    return get_version(w, record) >= 0 ? BENCH_OK : BENCH_FAILED;
}

int get_second(struct worker *w, uint64_t record)
{
    return get_version(w, record) == 1 ? BENCH_OK : BENCH_FAILED;
}

static int expect_absent(struct worker *w, uint64_t record)
{
    unsigned char key[KEY_SIZE];
    size_t len;
    make_key(record, key);
    int status = w->task->driver->get(w->session, key, w->buf, w->task->setup.value_size + 1, &len);
    return status == BENCH_ABSENT ? BENCH_OK : BENCH_FAILED;
}

int get_absent(struct worker *w, uint64_t record)
{
    return expect_absent(w, record + ABSENT_BASE);
}

int get_deleted(struct worker *w, uint64_t record)
{
    return expect_absent(w, record);
}

int delete_one(struct worker *w, uint64_t record)
{
    unsigned char key[KEY_SIZE];
    make_key(record, key);
    return w->task->driver->del(w->session, key);
}

int read_or_update(struct worker *w, uint64_t record)
{
    return w->write ? set_any(w, record) : get_any(w, record);
}

int read_or_modify(struct worker *w, uint64_t record)
{
    int version = get_version(w, record);
    if (version < 0)
        return BENCH_FAILED;
    return w->write ? set_version(w, record, ((unsigned)version + 1) % VERSIONS) : BENCH_OK;
}

/* Records [batch * BATCH_SIZE, ...), as far as there are any; one by one if the store must. */
int set_batch(struct worker *w, uint64_t batch)
{
    const struct driver *driver = w->task->driver;
    const size_t first = (size_t)batch * BATCH_SIZE, left = w->task->setup.records - first;
    const size_t count = left < BATCH_SIZE ? left : BATCH_SIZE;
    struct pair pairs[BATCH_SIZE];
    if (driver->batch == NULL) {
        int status = BENCH_OK;
        for (size_t i = 0; status == BENCH_OK && i < count; i++)
            status = set_first(w, first + i);
        return status;
    }
    for (size_t i = 0; i < count; i++) {
        make_key(first + i, pairs[i].key);
        pairs[i].value = make_value(pairs[i].key, 0);
    }
    return driver->batch(w->session, pairs, count, w->task->setup.value_size);
}
