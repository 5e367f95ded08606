/*
 * kvstore in one program: counts the words of a text in a database, and shows what the database does meanwhile.
 *
 *     cc -std=c99 quickstart.c -lkvstore -o quickstart
 *     ./quickstart [directory [text file]]
 *
 * Without a text file it makes up a text of 300,000 words, of which some are frequent and most are rare, as in any
 * language. Each word is a key, its value is how often it occurred.
 */
#define _POSIX_C_SOURCE 200809L

#include <kvstore.h>

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* Status codes are for programs; kv_last_error() is for people. Here, every error ends the program. */
static void check(int32_t status, const char *what) {
    char message[1024];
    if (status >= 0) return; /* KV_OK, or an outcome such as KV_NOT_FOUND that is no error */
    kv_last_error(message, sizeof message);
    fprintf(stderr, "%s: %s (%s)\n", what, kv_strerror(status), message);
    exit(EXIT_FAILURE);
}

/* --- The database: words and their counts ------------------------------------------------- */

/* Counts are stored as 8 bytes, lowest first, so that a database can move to any other machine. */
static void encode(uint64_t count, uint8_t bytes[8]) {
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(count >> 8 * i);
}

static uint64_t decode(const uint8_t bytes[8]) {
    uint64_t count = 0;
    for (int i = 7; i >= 0; i--) count = count << 8 | bytes[i];
    return count;
}

/* How often a word was counted; 0 if never. kv_get_into() needs no allocation where the size is known. */
static uint64_t count_of(kv_store *store, const char *word) {
    uint8_t value[8];
    size_t len;
    int32_t status = kv_get_into(store, (const uint8_t *)word, strlen(word), value, sizeof value, &len);
    check(status, "read a count");
    return status == KV_NOT_FOUND ? 0 : decode(value);
}

static void set_count(kv_store *store, const char *word, uint64_t count) {
    uint8_t value[8];
    encode(count, value);
    check(kv_set(store, (const uint8_t *)word, strlen(word), value, sizeof value), "store a count");
}

/* Returns whether the word was there. */
static int forget(kv_store *store, const char *word) {
    int32_t status = kv_del(store, (const uint8_t *)word, strlen(word));
    check(status, "delete a word");
    return status == KV_OK;
}

static kv_store *open_database(const char *directory) {
    kv_store *store;
    check(kv_open(directory, NULL, &store), "open the database");
    return store;
}

/* --- The text: words one after another, from a file or made up --------------------------- */

struct text {
    FILE *file;      /* NULL: made up */
    uint64_t random; /* the state of the generator */
    uint64_t left;   /* words still to be made up */
};

static struct text begin(const char *path) {
    struct text text = {NULL, 1, 300000};
    if (path && !(text.file = fopen(path, "r"))) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    return text;
}

static uint64_t next_random(struct text *text) {
    text->random = text->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return text->random >> 33;
}

/* Word number n is about n times rarer than word number 1, for n up to 32,767. */
static void make_up_word(struct text *text, char *word) {
    static const char *const SYLLABLES[] = {"ka", "lo", "mi", "ne", "ru", "ta", "so", "vi",
                                            "den", "bar", "ul", "esh", "or", "in", "gal", "tho"};
    uint64_t magnitude = UINT64_C(1) << next_random(text) % 15;
    uint64_t number = magnitude + next_random(text) % magnitude;
    word[0] = '\0';
    for (; number > 0; number >>= 4) strcat(word, SYLLABLES[number & 15]);
}

/* The next word, in lower case, into a buffer of 64 bytes; 0 at the end. */
static int next_word(struct text *text, char *word) {
    size_t len = 0;
    int c;
    if (!text->file) {
        if (text->left == 0) return 0;
        text->left--;
        make_up_word(text, word);
        return 1;
    }
    while ((c = getc(text->file)) != EOF) {
        if (isalpha(c)) {
            if (len < 63) word[len++] = (char)tolower(c);
        } else if (len > 0) {
            break;
        }
    }
    word[len] = '\0';
    return len > 0;
}

static void end(struct text *text) {
    if (text->file) fclose(text->file);
}

/* --- What the program does ---------------------------------------------------------------- */

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* What the files of the database add up to. */
static uint64_t size_on_disk(const char *directory) {
    uint64_t size = 0;
    struct dirent *entry;
    DIR *files = opendir(directory);
    if (!files) return 0;
    while ((entry = readdir(files)) != NULL) {
        char path[4096];
        struct stat info;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (stat(path, &info) == 0 && S_ISREG(info.st_mode)) size += (uint64_t)info.st_blocks * 512;
    }
    closedir(files);
    return size;
}

static void count_words(kv_store *store, const char *path) {
    struct text text = begin(path);
    uint64_t words = 0;
    double start = seconds();
    char word[64];
    while (next_word(&text, word)) {
        set_count(store, word, count_of(store, word) + 1);
        words++;
    }
    end(&text);
    printf("counted %" PRIu64 " words in %.2f seconds: a read and a write each\n", words, seconds() - start);
}

static void forget_short_words(kv_store *store, const char *path) {
    struct text text = begin(path);
    uint64_t forgotten = 0;
    char word[64];
    while (next_word(&text, word)) {
        if (strlen(word) < 4) forgotten += (uint64_t)forget(store, word);
    }
    end(&text);
    printf("deleted %" PRIu64 " words of less than four letters\n", forgotten);
}

/* One number that stands for all counts of all words of the text. */
static uint64_t digest(kv_store *store, const char *path) {
    struct text text = begin(path);
    uint64_t sum = 0;
    char word[64];
    while (next_word(&text, word)) sum = sum * 31 + count_of(store, word);
    end(&text);
    return sum;
}

static void show(kv_store *store, const char *directory, const char *when) {
    struct kv_stats stats;
    check(kv_stats(store, &stats, sizeof stats), "read the statistics");
    printf("%s: %" PRIu64 " keys, log of %" PRIu64 " bytes = %" PRIu64 " live + %" PRIu64 " dead, %" PRIu64
           " bytes on disk\n",
           when, stats.keys, stats.log_bytes, stats.live_bytes, stats.dead_bytes, size_on_disk(directory));
}

int main(int argc, char **argv) {
    const char *directory = argc > 1 ? argv[1] : "quickstart.db";
    const char *text = argc > 2 ? argv[2] : NULL;
    uint64_t before, reopened, compacted;
    struct kv_recovery_info found;
    kv_store *store;

    printf("kvstore %s, database %s\n", kv_version(), directory);
    store = open_database(directory);
    count_words(store, text);
    forget_short_words(store, text);
    before = digest(store, text);
    show(store, directory, "before closing");
    check(kv_close(store), "close the database");

    store = open_database(directory);
    check(kv_recovery_info(store, &found, sizeof found), "see what opening found");
    reopened = digest(store, text);
    printf("reopened: the database was %s, all counts are %s\n",
           found.clean ? "closed properly" : "not closed properly", reopened == before ? "restored" : "NOT RESTORED");

    show(store, directory, "before compaction");
    check(kv_compact(store), "compact");
    show(store, directory, "after compaction");
    compacted = digest(store, text);
    check(kv_close(store), "close the database");
    return reopened == before && compacted == before ? EXIT_SUCCESS : EXIT_FAILURE;
}
