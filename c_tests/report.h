/*
 * Reports, for the tests of what makes them.
 */
#ifndef REPORT_H
#define REPORT_H

#include "files.h"

static inline struct kv_report_totals totals_of(const kv_report *report) {
    struct kv_report_totals totals;
    OK(kv_report_totals(report, &totals, sizeof totals));
    return totals;
}

/* Whether there is a problem of this file, at `offset` unless that is UINT64_MAX. */
static inline bool has_problem(const kv_report *report, const char *name, uint64_t offset) {
    for (size_t i = 0; i < kv_report_len(report); i++) {
        const char *file, *what;
        uint64_t at;
        OK(kv_report_problem(report, i, &file, &at, &what));
        CHECK(strlen(what) > 0);
        if (strcmp(file, name) == 0 && (offset == UINT64_MAX || at == offset)) return true;
    }
    return false;
}

/* What a report does whatever is in it. */
static inline void check_report(const kv_report *report) {
    const char *file = "x", *what = "x";
    uint64_t offset = 1;
    uint8_t large[sizeof(struct kv_report_totals) + 16];
    struct kv_report_totals totals = totals_of(report);
    CHECK(report != NULL);
    COMPARE(totals.problems, >=, kv_report_len(report));
    STATUS(kv_report_problem(report, kv_report_len(report), &file, &offset, &what), KV_NOT_FOUND);
    CHECK(file == NULL && offset == 0 && what == NULL);
    STATUS(kv_report_problem(report, SIZE_MAX, NULL, NULL, NULL), KV_NOT_FOUND);
    for (size_t i = 0; i < kv_report_len(report); i++) OK(kv_report_problem(report, i, NULL, NULL, NULL));
    STATUS(kv_report_totals(report, NULL, sizeof totals), KV_ERR_INVALID);
    STATUS(kv_report_totals(report, &totals, 8), KV_ERR_INVALID);
    STATUS(kv_report_totals(report, &totals, sizeof totals + 1), KV_ERR_INVALID);
    memset(large, 0xff, sizeof large);
    OK(kv_report_totals(report, (struct kv_report_totals *)(void *)large, sizeof large));
    for (size_t i = sizeof totals; i < sizeof large; i++) CHECK(large[i] == 0);
}

/* The functions of reports, without one. */
static inline void without_a_report(void) {
    const char *file = "x", *what = "x";
    uint64_t offset = 1;
    struct kv_report_totals totals;
    memset(&totals, 0xff, sizeof totals);
    COMPARE(kv_report_len(NULL), ==, 0);
    STATUS(kv_report_problem(NULL, 0, &file, &offset, &what), KV_ERR_INVALID);
    CHECK(file == NULL && offset == 0 && what == NULL);
    STATUS(kv_report_totals(NULL, &totals, sizeof totals), KV_ERR_INVALID);
    COMPARE(totals.problems, ==, 0);
    kv_report_free(NULL);
}

/* A callback that stops at the call that `ctx`, an int, counts down to. */
static inline int32_t stop_later(void *ctx, uint64_t done, uint64_t total) {
    int *left = ctx;
    CHECK(done <= total);
    return --*left < 0;
}

#endif
