/* The command line, and turns: each store runs each step in a fresh process and directory. */
#include "bench.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char usage[] =
    "usage: bench [options]\n"
    "  --stores a,b       only these (default: all that were found)\n"
    "  --workloads x,y    only these: fill get absent iterate ycsb-a ycsb-b ycsb-c ycsb-f\n"
    "                     overwrite delete batch synced churn open cold-get\n"
    "  --records N        records of the smallest value size (default 1000000)\n"
    "  --value-size N     only this size (default: 100 in full, 1024 and 65536 fill and get)\n"
    "  --threads 1,2      for point reads and writes (default 1,2,8)\n"
    "  --sync-threads L   for synced writes (default 1,4,16)\n"
    "  --rounds N         turns of each store (default 3)\n"
    "  --seconds S        the longest time of one pass, a fill excepted (default 3)\n"
    "  --no-latency       leave out the pass that times single operations\n"
    "  --dir D            where the databases live meanwhile (default: beside the program)\n"
    "  --tsv FILE         all results, one a line\n"
    "  --quick            a small run that shows that everything works\n"
    "Data larger than memory: run it in a control group with a limit, for example\n"
    "  systemd-run --scope -p MemoryMax=1G bench --records 10000000 --workloads get\n";

struct options {
    const char *stores, *workloads, *threads, *sync_threads, *dir, *tsv, *step;
    size_t records, value_size;
    int rounds;
    double seconds;
    bool latency, no_latency;
};

/* One step in one configuration: the unit in which stores take turns. */
struct job {
    const char *step, *workloads;
    size_t value_size, records;
    int threads;
    double seconds;
};

enum { MOST_JOBS = 64, BASE_VALUE_SIZE = 100 };

static struct job jobs[MOST_JOBS];
static int job_count, turn, turns, failures;
static uint64_t started;
static const char *program;

/* ---- What is to be done ---------------------------------------------------------------------- */

static const char *const point_workloads[] = {
    "fill", "get", "absent", "ycsb-c", "ycsb-b", "ycsb-a", "ycsb-f", "overwrite", "delete", NULL,
};

static bool any_wanted(const char *const *names, const char *list)
{
    for (; *names; names++)
        if (in_list(list, *names))
            return true;
    return false;
}

static void add_job(struct job job)
{
    if (job_count < MOST_JOBS)
        jobs[job_count++] = job;
}

static void add_jobs_for_threads(const char *list, struct job job)
{
    char *end;
    for (const char *at = list; *at; at = *end ? end + 1 : end) {
        job.threads = (int)strtol(at, &end, 10);
        if (job.threads < 1 || (*end != ',' && *end != '\0')) {
            fprintf(stderr, "bench: threads: a list of numbers is wanted, not \"%s\"\n", list);
            exit(2);
        }
        add_job(job);
    }
}

static void add_jobs_for_size(const struct options *o, size_t value_size, size_t records)
{
    const char *list = o->workloads ? o->workloads : "fill,get,absent,iterate,ycsb-c,ycsb-b,ycsb-a,"
        "ycsb-f,overwrite,delete,batch,synced,churn,open,cold-get";
    const bool base = value_size == (o->value_size ? o->value_size : BASE_VALUE_SIZE);
    struct job job = { NULL, list, value_size, records, 1, o->seconds };
    job.step = "point";
    if (!base && any_wanted((const char *const[]){ "fill", "get", NULL }, list)) {
        job.workloads = in_list(list, "fill") ? "fill,get" : "get";
        add_job(job);
    }
    if (!base)
        return;
    if (any_wanted(point_workloads, list))
        add_jobs_for_threads(o->threads, job);
    else if (in_list(list, "iterate"))
        add_job(job);
    job.step = "batch";
    if (in_list(list, "batch"))
        add_job(job);
    job.step = "churn";
    if (in_list(list, "churn"))
        add_job(job);
    job.step = "open";
    if (in_list(list, "open") || in_list(list, "cold-get"))
        add_job(job);
    job.step = "synced";
    job.records = records < 100000 ? records : 100000;
    job.seconds = o->seconds / 2;
    if (in_list(list, "synced"))
        add_jobs_for_threads(o->sync_threads, job);
}

/* Larger values come in smaller numbers: about twice the bytes of the base size. */
static void plan_jobs(const struct options *o)
{
    static const size_t sizes[] = { BASE_VALUE_SIZE, 1024, 65536 };
    if (o->value_size) {
        add_jobs_for_size(o, o->value_size, o->records);
        return;
    }
    add_jobs_for_size(o, sizes[0], o->records);
    for (int i = 1; i < 3; i++) {
        size_t records = o->records * 2 * (BASE_VALUE_SIZE + KEY_SIZE) / (sizes[i] + KEY_SIZE);
        add_jobs_for_size(o, sizes[i], records < 100 ? 100 : records);
    }
}

/* ---- Children -------------------------------------------------------------------------------- */

static void show_progress(const struct job *job, const char *store, int round, const char *what)
{
    const double spent = (double)(now_ns() - started) / 1e9;
    const double left = turn ? spent / turn * (turns - turn) : 0;
    const bool terminal = isatty(STDERR_FILENO);
    char pass[32] = "latency";
    if (round > 0)
        snprintf(pass, sizeof pass, "round %d", round);
    fprintf(stderr, "%s[%d/%d] %d:%02d, about %d:%02d left, %s: %s, %zu B, %d thread%s: %s%s",
            terminal ? "\r\033[K" : "", turn + 1, turns, (int)spent / 60, (int)spent % 60,
            (int)left / 60, (int)left % 60, pass, store, job->value_size, job->threads,
            job->threads == 1 ? "" : "s", what, terminal ? "" : "\n");
    fflush(stderr);
}

static void read_results(FILE *from, const struct job *job, const char *store, int round)
{
    char line[256];
    while (fgets(line, sizeof line, from)) {
        struct row row = { .value_size = job->value_size, .records = job->records,
                           .threads = job->threads, .round = round };
        char what[64];
        snprintf(row.store, sizeof row.store, "%s", store);
        if (sscanf(line, "P\t%63[^\n]", what) == 1 && isatty(STDERR_FILENO))
            show_progress(job, store, round, what);
        else if (sscanf(line, "R\t%23[^\t]\t%23[^\t]\t%lf", row.workload, row.metric, &row.value)
                 == 3)
            report_add(&row);
    }
}

/* Runs argv, takes its results, and returns its wait status. */
static int run_child(char *const argv[], const struct job *job, const char *store, int round)
{
    int fds[2], status = -1;
    if (pipe(fds) != 0)
        die("pipe");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        close(fds[1]);
        execv(argv[0], argv);
        _exit(127);
    }
    close(fds[1]);
    FILE *from = fdopen(fds[0], "r");
    read_results(from, job, store, round);
    fclose(from);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

static bool run_store_step(const struct job *job, const char *store, const char *step, int round,
                           const char *dir)
{
    char records[24], value_size[24], threads[24], seconds[24];
    snprintf(records, sizeof records, "%zu", job->records);
    snprintf(value_size, sizeof value_size, "%zu", job->value_size);
    snprintf(threads, sizeof threads, "%d", job->threads);
    snprintf(seconds, sizeof seconds, "%g", job->seconds);
    char *argv[] = {
        (char *)program, "--step", (char *)step, "--stores", (char *)store, "--dir", (char *)dir,
        "--workloads", (char *)job->workloads, "--records", records, "--value-size", value_size,
        "--threads", threads, "--seconds", seconds, round > 0 ? NULL : "--latency", NULL,
    };
    int status = run_child(argv, job, store, round);
    if (strcmp(step, "kill") == 0)
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void run_store(const struct job *job, const char *store, int round, const char *base)
{
    static const char *const open_steps[] = { "kill", "open-killed", "open-clean", NULL };
    const char *const one_step[] = { job->step, NULL };
    const char *const *steps = strcmp(job->step, "open") == 0 ? open_steps : one_step;
    char dir[4200];
    snprintf(dir, sizeof dir, "%s/%s", base, store);
    tree_remove(dir);
    mkdir(dir, 0755);
    show_progress(job, store, round, job->step);
    for (; *steps; steps++)
        if (!run_store_step(job, store, *steps, round, dir)) {
            fprintf(stderr, "\nbench: %s: step %s failed, its rows are missing\n", store, *steps);
            failures++;
            break;
        }
    tree_remove(dir);
    sync(); /* nobody writes back another one's pages */
    turn++;
}

/* The floor knows one thread: it runs beside the point jobs and the synced one that do too. */
static void run_floor(const struct job *job, int round, const char *dir)
{
    const bool synced = strcmp(job->step, "synced") == 0;
    char path[4200], records[24], value_size[24];
    snprintf(path, sizeof path, "%.*s/floor", (int)(strrchr(program, '/') - program), program);
    if ((strcmp(job->step, "point") != 0 && !synced) || job->threads != 1
        || access(path, X_OK) != 0)
        return;
    snprintf(records, sizeof records, "%zu", job->records);
    snprintf(value_size, sizeof value_size, "%zu", job->value_size);
    char *argv[] = { path, (char *)dir, records, value_size,
                     (char *)(synced ? "synced" : job->workloads), NULL };
    if (run_child(argv, job, "floor", round) != 0) {
        fprintf(stderr, "\nbench: floor failed\n");
        failures++;
    }
}

/* Threads beyond the cores would measure the scheduler, unless they wait for the disk. */
static bool has_latency(const struct job *job, const struct options *o)
{
    return !o->no_latency && strcmp(job->step, "batch") != 0 && strcmp(job->step, "open") != 0
        && (job->threads == 1 || strcmp(job->step, "synced") == 0);
}

static void run_jobs(const char *const *stores, int store_count, const struct options *o,
                     const char *dir)
{
    int timed_jobs = 0;
    for (int j = 0; j < job_count; j++)
        timed_jobs += has_latency(&jobs[j], o);
    turns = (job_count * o->rounds + timed_jobs) * store_count;
    started = now_ns();
    /* Waiting for the disk first, while it is idle: the other work leaves it a lot to write. */
    for (int waits = 1; waits >= 0; waits--)
        for (int round = 1; round <= o->rounds + 1; round++)
            for (int j = 0; j < job_count; j++) {
                const bool timed = round > o->rounds; /* the last one is the latency pass */
                if ((strcmp(jobs[j].step, "synced") == 0) != waits
                    || (timed && !has_latency(&jobs[j], o)))
                    continue;
                for (int s = 0; s < store_count; s++)
                    run_store(&jobs[j], stores[s], timed ? 0 : round, dir);
                if (!timed)
                    run_floor(&jobs[j], round, dir);
            }
    fputc('\n', stderr);
}

/* ---- Command line ---------------------------------------------------------------------------- */

static struct options parse(int argc, char **argv)
{
    static const struct option names[] = {
        { "stores", 1, 0, 's' }, { "workloads", 1, 0, 'w' }, { "records", 1, 0, 'n' },
        { "value-size", 1, 0, 'v' }, { "threads", 1, 0, 't' }, { "sync-threads", 1, 0, 'y' },
        { "rounds", 1, 0, 'r' }, { "seconds", 1, 0, 'S' }, { "no-latency", 0, 0, 'L' },
        { "dir", 1, 0, 'd' }, { "tsv", 1, 0, 'o' }, { "quick", 0, 0, 'q' },
        { "step", 1, 0, 1 }, { "latency", 0, 0, 2 }, { "help", 0, 0, 'h' }, { 0, 0, 0, 0 },
    };
    struct options o = { .threads = "1,2,8", .sync_threads = "1,4,16", .records = 1000000,
                         .rounds = 3, .seconds = 3 };
    for (int c; (c = getopt_long(argc, argv, "h", names, NULL)) != -1;)
        switch (c) {
        case 's': o.stores = optarg; break;
        case 'w': o.workloads = optarg; break;
        case 'n': o.records = strtoull(optarg, NULL, 10); break;
        case 'v': o.value_size = strtoull(optarg, NULL, 10); break;
        case 't': o.threads = optarg; break;
        case 'y': o.sync_threads = optarg; break;
        case 'r': o.rounds = atoi(optarg); break;
        case 'S': o.seconds = strtod(optarg, NULL); break;
        case 'L': o.no_latency = true; break;
        case 'd': o.dir = optarg; break;
        case 'o': o.tsv = optarg; break;
        case 'q':
            o.records = 20000, o.rounds = 1, o.seconds = 0.2;
            o.threads = "1,2", o.sync_threads = "1,4";
            break;
        case 1: o.step = optarg; break;
        case 2: o.latency = true; break;
        default: fputs(usage, c == 'h' ? stdout : stderr); exit(c == 'h' ? 0 : 2);
        }
    if (optind < argc || o.records == 0 || o.records >= WRITE_BIT / 3 || o.rounds < 1) {
        fputs(usage, stderr);
        exit(2);
    }
    return o;
}

static int run_as_child(const struct options *o)
{
    struct task task = {
        .driver = find_driver(o->stores), .workloads = o->workloads, .threads = atoi(o->threads),
        .seconds = o->seconds, .latency = o->latency,
        .setup = { .dir = o->dir, .records = o->records, .value_size = o->value_size,
                   .synced = strcmp(o->step, "synced") == 0 },
    };
    if (task.driver == NULL)
        return 2;
    task.setup.variant = task.driver->variant;
    return run_step(o->step, &task);
}

/* Those that were asked for, or all but the extra ones; what is missing is said. */
static int choose_stores(const struct options *o, const char **stores)
{
    int count = 0;
    for (const struct known_driver *k = known_drivers; k->name; k++) {
        if (!in_list(o->stores, k->name))
            continue;
        if (k->driver == NULL)
            printf("%s: skipped, its library was not found when this program was built\n", k->name);
        else if (o->stores != NULL || !k->driver->extra) {
            report_settings(k->driver);
            stores[count++] = k->name;
        }
    }
    return count;
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    if (o.step != NULL)
        return run_as_child(&o);

    static char self[4096], dir[4096], machine[512];
    const char *stores[32];
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        snprintf(self, sizeof self, "%s", argv[0]);
    program = self;
    if (o.dir)
        snprintf(dir, sizeof dir, "%s", o.dir);
    else
        snprintf(dir, sizeof dir, "%.*s/data", (int)(strrchr(self, '/') - self), self);
    if (mkdir(dir, 0755) != 0 && errno != EEXIST) {
        perror(dir);
        return 1;
    }
    describe_machine(machine, sizeof machine, dir);
    if (!report_open(o.tsv, machine)) {
        perror(o.tsv);
        return 1;
    }
    int store_count = choose_stores(&o, stores);
    plan_jobs(&o);
    if (store_count == 0 || job_count == 0) {
        fprintf(stderr, "bench: nothing to measure: no such store or no such workload\n");
        return 2;
    }
    fflush(stdout);
    run_jobs(stores, store_count, &o, dir);
    rmdir(dir);
    report_print();
    return failures ? 1 : 0;
}
