/* What a child process tells its parent: results and progress on stdout, trouble on stderr. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

void emit(const char *workload, const char *metric, double value)
{
    printf("R\t%s\t%s\t%.9g\n", workload, metric, value);
    fflush(stdout);
}

void announce(const char *workload)
{
    printf("P\t%s\n", workload);
    fflush(stdout);
}

void die(const char *what)
{
    fflush(stdout);
    fprintf(stderr, "\nbench: %s: a call failed or an answer was wrong\n", what);
    _Exit(1);
}

int complain(const char *store, const char *call, const char *why)
{
    fprintf(stderr, "\nbench: %s: %s: %s\n", store, call, why);
    return BENCH_FAILED;
}

/* Whether a comma-separated list has the name; no list has every name. */
bool in_list(const char *list, const char *name)
{
    const size_t len = strlen(name);
    if (list == NULL)
        return true;
    for (const char *at = list; (at = strstr(at, name)) != NULL; at += len)
        if ((at == list || at[-1] == ',') && (at[len] == ',' || at[len] == '\0'))
            return true;
    return false;
}
