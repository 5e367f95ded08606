/* What the machine itself needs for the work of the benchmark: a record copied into a mapping, a
 * random read that waits for the one before, a walk through all, a copy of it all, a small append
 * made durable. */
#include "bench.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HEADER 16 /* a store must at least know the length of key and value, and a checksum */

struct floor {
    char path[4096];
    size_t records, value_size, record_size, length;
    unsigned char *map;
};

static void emit_rate(const char *name, size_t count, uint64_t start, double cpu)
{
    emit(name, "ops_s", (double)count * 1e9 / (double)(now_ns() - start));
    emit(name, "cpu_ns", (cpu_seconds() - cpu) * 1e9 / (double)count);
}

static void append_all(struct floor *f)
{
    int fd = open(f->path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || posix_fallocate(fd, 0, (off_t)f->length) != 0)
        die(f->path);
    f->map = mmap(NULL, f->length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (f->map == MAP_FAILED)
        die("mmap");
    close(fd);
    announce("append");
    double cpu = cpu_seconds();
    uint64_t start = now_ns();
    size_t ready = 0, step = (size_t)16 << 20;
    for (size_t i = 0; i < f->records; i++) {
        size_t at = i * f->record_size;
#ifdef MADV_POPULATE_WRITE /* cheaper than a fault a page */
        for (; ready < at + f->record_size; ready += step)
            madvise(f->map + ready, f->length - ready < step ? f->length - ready : step,
                    MADV_POPULATE_WRITE);
#else
        (void)ready, (void)step;
#endif
        unsigned char key[KEY_SIZE];
        make_key(i, key);
        memcpy(f->map + at + HEADER, key, KEY_SIZE);
        memcpy(f->map + at + HEADER + KEY_SIZE, make_value(key, 0), f->value_size);
    }
    emit_rate("fill", f->records, start, cpu);
}

static void read_randomly(const struct floor *f)
{
    unsigned char *buf = malloc(f->value_size);
    uint64_t next = 1, word;
    announce("random read");
    double cpu = cpu_seconds();
    uint64_t start = now_ns();
    for (size_t i = 0; i < f->records; i++) {
        const unsigned char *at = f->map + next % f->records * f->record_size + HEADER;
        memcpy(&word, at, sizeof word);
        memcpy(buf, at + KEY_SIZE, f->value_size);
        if (value_version(at, buf, f->value_size) != 0)
            die("random read");
        next = mix64(word + i); /* not known before the record has arrived */
    }
    emit_rate("get", f->records, start, cpu);
    free(buf);
}

static void walk(const struct floor *f)
{
    uint64_t sum = 0;
    announce("walk");
    double cpu = cpu_seconds();
    uint64_t start = now_ns();
    for (size_t i = 0; i < f->records; i++) {
        uint64_t words[2];
        const unsigned char *at = f->map + i * f->record_size + HEADER;
        memcpy(&words[0], at, 8);
        memcpy(&words[1], at + KEY_SIZE + f->value_size - 8, 8);
        sum += words[0] ^ words[1];
    }
    __asm__ volatile("" : : "r"(sum)); /* the sum is wanted, as far as the compiler knows */
    emit_rate("iterate", f->records, start, cpu);
}

/* All records once more, from the mapping to a file in the page cache: what a compaction that finds
 * no garbage has to move. */
static void copy_all(const struct floor *f)
{
    const size_t piece = (size_t)256 << 10;
    char path[4200];
    snprintf(path, sizeof path, "%s.copy", f->path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        die(path);
    announce("copy");
    uint64_t start = now_ns();
    for (size_t at = 0; at < f->length; at += piece) {
        size_t size = f->length - at < piece ? f->length - at : piece;
        if (write(fd, f->map + at, size) != (ssize_t)size)
            die(path);
    }
    emit("compact", "ns", (double)(now_ns() - start));
    close(fd);
    unlink(path);
}

static void append_synced(const struct floor *f)
{
    const uint64_t duration = 500000000;
    unsigned char record[4096] = { 1 };
    size_t size = f->record_size < sizeof record ? f->record_size : sizeof record, count = 0;
    int fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || posix_fallocate(fd, 0, 64 << 20) != 0 || fsync(fd) != 0)
        die(f->path); /* with space ahead a sync need not write the file's size */
    announce("synced append");
    double cpu = cpu_seconds();
    uint64_t start = now_ns(), end = start + duration;
    while (now_ns() < end) {
        if (write(fd, record, size) != (ssize_t)size || fdatasync(fd) != 0)
            die("synced append");
        count++;
    }
    emit_rate("synced", count, start, cpu);
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: floor DIR RECORDS VALUE_SIZE fill,get,iterate,churn|synced\n");
        return 2;
    }
    struct floor f = { .records = strtoull(argv[2], NULL, 10),
                       .value_size = strtoull(argv[3], NULL, 10) };
    snprintf(f.path, sizeof f.path, "%s/floor", argv[1]);
    f.record_size = HEADER + KEY_SIZE + f.value_size;
    f.length = f.records * f.record_size;
    if (strcmp(argv[4], "synced") == 0) {
        append_synced(&f);
    } else {
        data_init(f.value_size);
        append_all(&f);
        if (in_list(argv[4], "get"))
            read_randomly(&f);
        if (in_list(argv[4], "iterate"))
            walk(&f);
        if (in_list(argv[4], "churn"))
            copy_all(&f);
    }
    unlink(f.path);
    return 0;
}
