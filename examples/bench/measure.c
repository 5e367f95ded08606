/* Clock, latency histogram, memory of this process, bytes on disk. */
#include "bench.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* All threads of the process, the store's own included. */
double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec)
         + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

struct memory memory_now(void)
{
    struct memory m = { 0, 0 };
    FILE *status = fopen("/proc/self/status", "r");
    if (status == NULL)
        return m;
    char line[128];
    long kib;
    while (fgets(line, sizeof line, status)) {
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            m.resident = (double)kib * 1024;
        if (sscanf(line, "RssAnon: %ld", &kib) == 1)
            m.anonymous = (double)kib * 1024;
    }
    fclose(status);
    return m;
}

/* ---- Histogram: 32 buckets a power of two, so a quantile is within 3 % ---------------------- */

enum { SUB_BITS = 5, SUB = 1 << SUB_BITS };

struct histogram {
    uint64_t count, max;
    uint64_t buckets[64 * SUB];
};

struct histogram *histogram_new(void)
{
    struct histogram *h = calloc(1, sizeof *h);
    if (h == NULL)
        die("out of memory");
    return h;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    int shift = ns < SUB ? 0 : 63 - __builtin_clzll(ns) - SUB_BITS;
    h->buckets[shift * SUB + (int)(ns >> shift)]++;
    h->count++;
    if (ns > h->max)
        h->max = ns;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (size_t i = 0; i < sizeof into->buckets / sizeof *into->buckets; i++)
        into->buckets[i] += from->buckets[i];
    into->count += from->count;
    if (from->max > into->max)
        into->max = from->max;
}

double histogram_quantile(const struct histogram *h, double q)
{
    uint64_t seen = 0, wanted = (uint64_t)(q * (double)h->count);
    if (wanted >= h->count)
        return (double)h->max;
    for (int i = 0; i < 64 * SUB; i++) {
        seen += h->buckets[i];
        if (seen > wanted) {
            int shift = i < 2 * SUB ? 0 : i / SUB - 1;
            return (double)((uint64_t)(i - shift * SUB) << shift);
        }
    }
    return (double)h->max;
}

/* ---- A directory tree ------------------------------------------------------------------------ */

static double disk_bytes;
static const char *disk_suffix;

static int add_size(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)ftw;
    const size_t len = strlen(path), suffix_len = strlen(disk_suffix);
    if (type == FTW_F && len >= suffix_len && strcmp(path + len - suffix_len, disk_suffix) == 0)
        disk_bytes += (double)st->st_blocks * 512; /* what is allocated: some files are sparse */
    return 0;
}

double tree_disk_bytes(const char *dir, const char *suffix)
{
    disk_bytes = 0;
    disk_suffix = suffix;
    nftw(dir, add_size, 16, FTW_PHYS);
    return disk_bytes;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void tree_remove(const char *dir)
{
    nftw(dir, remove_entry, 16, FTW_PHYS | FTW_DEPTH);
}

static int drop_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)ftw;
    int fd = type == FTW_F ? open(path, O_RDONLY) : -1;
    if (fd >= 0) {
        fsync(fd); /* dirty pages are not dropped */
#ifdef POSIX_FADV_DONTNEED
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
#endif
        close(fd);
    }
    return 0;
}

/* The next access to these files goes to the disk. */
void tree_drop_cache(const char *dir)
{
    nftw(dir, drop_file, 16, FTW_PHYS);
}
