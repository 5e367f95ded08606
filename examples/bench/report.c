/* Rows of results: a TSV file while they come in, tables of medians and ratios at the end. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

static struct row *rows;
static size_t row_count;
static FILE *tsv;

static void say(const char *line)
{
    puts(line);
    if (tsv)
        fprintf(tsv, "# %s\n", line);
}

bool report_open(const char *path, const char *machine)
{
    if (path != NULL && (tsv = fopen(path, "w")) == NULL)
        return false;
    say(machine);
    return true;
}

void report_settings(const struct driver *driver)
{
    char line[512];
    snprintf(line, sizeof line, "%s %s: %s [synced: %s]", driver->name, driver->version(),
             driver->settings, driver->synced_settings);
    say(line);
}

void report_add(const struct row *row)
{
    if ((row_count & (row_count - 1)) == 0) { /* full at each power of two */
        rows = realloc(rows, (row_count ? row_count * 2 : 1) * sizeof *rows);
        if (rows == NULL)
            die("out of memory");
    }
    rows[row_count++] = *row;
    if (tsv == NULL)
        return;
    if (row_count == 1)
        fputs("store\tworkload\tthreads\tvalue_size\trecords\tround\tmetric\tvalue\n", tsv);
    fprintf(tsv, "%s\t%s\t%d\t%zu\t%zu\t%d\t%s\t%.9g\n", row->store, row->workload, row->threads,
            row->value_size, row->records, row->round, row->metric, row->value);
    fflush(tsv);
}

/* ---- Tables ---------------------------------------------------------------------------------- */

struct metric {
    const char *name, *label; /* the label follows the workload's name */
};

static const struct group {
    const char *title;
    struct metric metrics[4];
    bool more_is_better;
    bool time; /* in nanoseconds, printed with a unit */
} groups[] = {
    { "operations a second", { { "ops_s", "" } }, true, false },
    { "time to open or compact", { { "ns", "" } }, false, true },
    { "latency",
      { { "p50_ns", " p50" }, { "p99_ns", " p99" }, { "p99.9_ns", " p99.9" },
        { "max_ns", " max" } },
      false, true },
    { "CPU time an operation", { { "cpu_ns", "" } }, false, true },
    { "bytes a record",
      { { "disk_per_key", ": disk" }, { "derived_per_key", ": of it hints" },
        { "anon_per_key", ": anonymous memory" }, { "rss_per_key", ": resident memory" } },
      false, false },
};

enum { MOST = 64 };

/* The distinct names that the rows of a table have. */
struct names {
    const char *at[MOST];
    int count;
};

static void add_name(struct names *names, const char *name)
{
    for (int i = 0; i < names->count; i++)
        if (strcmp(names->at[i], name) == 0)
            return;
    if (names->count < MOST)
        names->at[names->count++] = name;
}

struct table {
    const struct group *group;
    size_t value_size, records;
    int threads;
    struct names stores, workloads;
};

static bool has_metric(const struct group *group, const char *name)
{
    for (int i = 0; i < 4 && group->metrics[i].name; i++)
        if (strcmp(group->metrics[i].name, name) == 0)
            return true;
    return false;
}

static bool belongs(const struct table *table, const struct row *row)
{
    return row->value_size == table->value_size && row->threads == table->threads
        && has_metric(table->group, row->metric);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Over the rounds; below 0 if there is none. */
static double median(const struct table *table, const char *metric, const char *store,
                     const char *workload)
{
    double values[MOST];
    int n = 0;
    for (size_t i = 0; i < row_count && n < MOST; i++)
        if (belongs(table, &rows[i]) && strcmp(rows[i].metric, metric) == 0
            && strcmp(rows[i].store, store) == 0 && strcmp(rows[i].workload, workload) == 0)
            values[n++] = rows[i].value;
    if (n == 0)
        return -1;
    qsort(values, (size_t)n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void print_value(double value, bool time)
{
    static const char *const plain[] = { "", "k", "M", "G" };
    static const char *const times[] = { "ns", "us", "ms", "s" };
    int unit = 0;
    for (; value >= 1000 && unit < 3; unit++)
        value /= 1000;
    if (value < 0)
        printf("%14s", "-");
    else
        printf("%12.*f%-2s", value >= 100 || (time && unit == 0) ? 0 : value >= 10 ? 1 : 2, value,
               (time ? times : plain)[unit]);
}

/* The last column: how many times better than the best peer we are; under 1 is worse. */
static void print_line(const struct table *table, const char *workload,
                       const struct metric *metric)
{
    const bool more = table->group->more_is_better;
    double ours = -1, best = -1;
    const char *best_store = "";
    char label[64];
    bool any = false;
    for (int i = 0; i < table->stores.count && !any; i++)
        any = median(table, metric->name, table->stores.at[i], workload) >= 0;
    if (!any)
        return;
    snprintf(label, sizeof label, "%s%s", workload, metric->label);
    printf("%-30s", label);
    for (int i = 0; i < table->stores.count; i++) {
        const char *store = table->stores.at[i];
        double value = median(table, metric->name, store, workload);
        print_value(value, table->group->time);
        if (strcmp(store, "kvstore") == 0)
            ours = value;
        else if (value >= 0 && strncmp(store, "kvstore", 7) != 0 && strcmp(store, "floor") != 0
                 && (best < 0 || (more ? value > best : value < best))) {
            best = value;
            best_store = store;
        }
    }
    if (ours > 0 && best > 0)
        printf("  %7.3g x %s", more ? ours / best : best / ours, best_store);
    putchar('\n');
}

/* Workloads in order of appearance, stores always in the same order, the floor last. */
static void collect(struct table *table)
{
    struct names found = { .count = 0 };
    for (size_t i = 0; i < row_count; i++)
        if (belongs(table, &rows[i])) {
            add_name(&found, rows[i].store);
            add_name(&table->workloads, rows[i].workload);
            if (rows[i].records > table->records)
                table->records = rows[i].records;
        }
    for (const struct known_driver *k = known_drivers; k->name; k++)
        for (int i = 0; i < found.count; i++)
            if (strcmp(found.at[i], k->name) == 0)
                add_name(&table->stores, k->name);
    for (int i = 0; i < found.count; i++)
        add_name(&table->stores, found.at[i]);
}

static void print_table(struct table *table)
{
    collect(table);
    if (table->workloads.count == 0)
        return;
    printf("\n%s: %zu-byte values, %d thread%s, %zu records\n%-30s", table->group->title,
           table->value_size, table->threads, table->threads == 1 ? "" : "s", table->records, "");
    for (int i = 0; i < table->stores.count; i++)
        printf("%14s", table->stores.at[i]);
    puts("  against the best peer");
    for (int i = 0; i < table->workloads.count; i++)
        for (int m = 0; m < 4 && table->group->metrics[m].name; m++)
            print_line(table, table->workloads.at[i], &table->group->metrics[m]);
}

/* A table for each value size and number of threads, in order of appearance. */
void report_print(void)
{
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
        for (size_t i = 0; i < row_count; i++) {
            bool first = true;
            for (size_t j = 0; j < i && first; j++)
                first = rows[j].value_size != rows[i].value_size
                     || rows[j].threads != rows[i].threads;
            struct table table = { .group = &groups[g], .value_size = rows[i].value_size,
                                   .threads = rows[i].threads };
            if (first)
                print_table(&table);
        }
    fflush(stdout);
    if (tsv)
        fclose(tsv);
}

/* ---- The machine ----------------------------------------------------------------------------- */

static const char *file_system(const char *dir)
{
    struct statfs fs;
    if (statfs(dir, &fs) != 0)
        return "unknown file system";
    switch ((unsigned long)fs.f_type) {
    case 0xEF53: return "ext4";
    case 0x58465342: return "xfs";
    case 0x9123683E: return "btrfs";
    case 0x01021994: return "tmpfs";
    case 0x794C7630: return "overlayfs";
    default: return "other file system";
    }
}

void describe_machine(char *text, size_t cap, const char *dir)
{
    struct utsname os;
    uname(&os);
    char line[256], cpu[128] = "unknown CPU";
    FILE *info = fopen("/proc/cpuinfo", "r");
    while (info && fgets(line, sizeof line, info))
        if (sscanf(line, "model name : %127[^\n]", cpu) == 1)
            break;
    if (info)
        fclose(info);
    double gib = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / (1 << 30);
    snprintf(text, cap, "machine: %s, %ld cores, %.0f GiB, %s %s, %s", cpu,
             sysconf(_SC_NPROCESSORS_ONLN), gib, os.sysname, os.release, file_system(dir));
}
