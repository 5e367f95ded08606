/* A bar for those who wait at a terminal, and a way to stop: Ctrl-C ends long work cleanly, the second time at once. */
#include "kv.h"

#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WIDTH = 24 };

static volatile sig_atomic_t stop;
static struct sigaction before, alarm_before; /* what Ctrl-C and the alarm did */
static bool shown;

/* Ctrl-C ends a read that waits for input, but not one that begins just after it: the alarm ends that. */
static void ask_to_stop(int signal_number) {
    (void)signal_number;
    stop = 1;
    alarm(1);
}

bool interrupted(void) {
    return stop != 0;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void begin_progress(struct progress *progress, const char *doing, bool counts) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = ask_to_stop;
    sigaction(SIGALRM, &action, &alarm_before);
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, NULL, &before);
    /* Work in the background is not to be stopped from the keyboard: the shell has seen to it. */
    if (before.sa_handler != SIG_IGN) sigaction(SIGINT, &action, NULL);
    *progress = (struct progress){.doing = doing, .counts = counts, .terminal = isatty(STDERR_FILENO), .began = now()};
    progress->last = progress->began;
}

/* "1.2 GiB", or just a number. */
static const char *amount(const struct progress *progress, double number, char text[static 16]) {
    if (!progress->counts) return size_text((uint64_t)number, text);
    snprintf(text, 16, "%.0f", number);
    return text;
}

static void draw(const struct progress *progress, uint64_t done, uint64_t total, double seconds) {
    char bar[WIDTH + 1], so_far[16], all[16], speed[16];
    double part = (double)done / (double)total;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    if (total == 0) {
        fprintf(stderr, "\r\033[K%s  %s  %s/s", progress->doing, amount(progress, (double)done, so_far),
                amount(progress, rate, speed));
        return;
    }
    /* An estimated total may turn out too small. */
    if (part > 1) part = 1;
    int full = (int)(part * WIDTH);
    memset(bar, '.', WIDTH);
    memset(bar, '#', (size_t)full);
    bar[WIDTH] = '\0';
    int left = rate > 0 ? (int)((double)(total - (done < total ? done : total)) / rate + 0.5) : 0;
    fprintf(stderr, "\r\033[K%s %3.0f%% [%s] %s of %s  %s/s  %d:%02d left", progress->doing, part * 100, bar,
            amount(progress, (double)done, so_far), amount(progress, (double)total, all),
            amount(progress, rate, speed), left / 60, left % 60);
}

int32_t show_progress(void *context, uint64_t done, uint64_t total) {
    struct progress *progress = context;
    if (!progress->terminal) return stop;
    double time = now();
    /* Nothing flashes by for work that is done at once. */
    if (time - progress->last >= (shown ? 0.1 : 0.5)) {
        draw(progress, done, total, time - progress->began);
        progress->last = time;
        shown = true;
    }
    return stop;
}

void hide_progress(void) {
    if (shown) fputs("\r\033[K", stderr);
    shown = false;
}

void end_progress(void) {
    hide_progress();
    sigaction(SIGINT, &before, NULL);
    alarm(0);
    sigaction(SIGALRM, &alarm_before, NULL);
}
