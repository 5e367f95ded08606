/*
 * Files and directories, for the tests that look at a database from outside.
 */
#ifndef FILES_H
#define FILES_H

#include "check.h"

#include <dirent.h>

struct bytes {
    uint8_t *data;
    size_t len;
};

static inline struct bytes read_file(const char *path) {
    struct bytes content = {NULL, 0};
    struct stat info;
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK(fstat(fileno(file), &info) == 0);
    content.len = (size_t)info.st_size;
    content.data = malloc(content.len + 1);
    CHECK(content.data != NULL);
    CHECK(fread(content.data, 1, content.len, file) == content.len);
    fclose(file);
    return content;
}

static inline void write_file(const char *path, const void *data, size_t len) {
    const uint8_t *content = data;
    FILE *file = fopen(path, "wb");
    size_t written = len;
    CHECK(file != NULL);
    /* Zeros at the end, space reserved by a store that was killed, need no blocks. */
    while (written > 0 && content[written - 1] == 0) written--;
    CHECK(fwrite(content, 1, written, file) == written);
    CHECK(fflush(file) == 0 && ftruncate(fileno(file), (off_t)len) == 0);
    CHECK(fclose(file) == 0);
}

static inline bool ends_with(const char *text, const char *end) {
    size_t text_len = strlen(text), end_len = strlen(end);
    return text_len >= end_len && strcmp(text + text_len - end_len, end) == 0;
}

static inline int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct listing {
    char **names;
    size_t count;
};

/* The names in a directory, in order, those that end in `suffix` only. */
static inline struct listing list_dir(const char *dir, const char *suffix) {
    struct listing list = {NULL, 0};
    struct dirent *entry;
    DIR *open_dir = opendir(dir);
    CHECK(open_dir != NULL);
    while ((entry = readdir(open_dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (!ends_with(entry->d_name, suffix)) continue;
        list.names = realloc(list.names, (list.count + 1) * sizeof *list.names);
        CHECK(list.names != NULL);
        list.names[list.count] = strdup(entry->d_name);
        CHECK(list.names[list.count++] != NULL);
    }
    closedir(open_dir);
    if (list.count) qsort(list.names, list.count, sizeof *list.names, compare_names);
    return list;
}

static inline void free_listing(struct listing list) {
    for (size_t i = 0; i < list.count; i++) free(list.names[i]);
    free(list.names);
}

static inline void remove_dir(const char *dir) {
    struct listing list = list_dir(dir, "");
    for (size_t i = 0; i < list.count; i++) {
        const char *path = path_in(dir, list.names[i]);
        struct stat info;
        CHECK(lstat(path, &info) == 0);
        if (S_ISDIR(info.st_mode)) {
            remove_dir(path);
        } else {
            CHECK(unlink(path) == 0);
        }
    }
    free_listing(list);
    CHECK(rmdir(dir) == 0);
}

/* Makes `to` a copy of the database `from`; what `to` held before is gone. */
static inline void copy_database(const char *from, const char *to) {
    struct listing list = list_dir(from, "");
    if (access(to, F_OK) == 0) remove_dir(to);
    CHECK(mkdir(to, 0777) == 0);
    for (size_t i = 0; i < list.count; i++) {
        struct bytes content = read_file(path_in(from, list.names[i]));
        write_file(path_in(to, list.names[i]), content.data, content.len);
        free(content.data);
    }
    free_listing(list);
}

/* What the files ending in `suffix` add up to: their lengths, or the blocks that they take. */
static inline uint64_t size_of_files(const char *dir, const char *suffix, bool blocks) {
    struct listing list = list_dir(dir, suffix);
    uint64_t sum = 0;
    for (size_t i = 0; i < list.count; i++) {
        struct stat info;
        /* A file may be retired between listing and looking. */
        if (stat(path_in(dir, list.names[i]), &info) != 0) continue;
        sum += blocks ? (uint64_t)info.st_blocks * 512 : (uint64_t)info.st_size;
    }
    free_listing(list);
    return sum;
}

/* A number that changes if anything about the files of a directory does: names, sizes, times, contents. */
static inline uint64_t fingerprint(const char *dir) {
    struct listing list = list_dir(dir, "");
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    struct stat info;
#define MIX(number) (hash = (hash ^ (uint64_t)(number)) * UINT64_C(0x100000001b3))
    CHECK(stat(dir, &info) == 0);
    MIX(info.st_mtime);
    MIX(info.st_ctime);
    for (size_t i = 0; i < list.count; i++) {
        const char *path = path_in(dir, list.names[i]);
        struct bytes content = read_file(path);
        CHECK(stat(path, &info) == 0);
        for (const char *c = list.names[i]; *c; c++) MIX(*c);
        for (size_t byte = 0; byte < content.len; byte++) MIX(content.data[byte]);
        MIX(content.len);
        MIX(info.st_ino);
        MIX(info.st_mode);
        MIX(info.st_mtime);
        MIX(info.st_ctime);
#ifdef __linux__
        MIX(info.st_mtim.tv_nsec);
        MIX(info.st_ctim.tv_nsec);
#endif
        free(content.data);
    }
#undef MIX
    free_listing(list);
    return hash;
}

/* Entries of /proc/self/`what`, or lines if it is a file. 0 where there is no such thing. */
static inline size_t count_of_self(const char *what) {
    const char *path = path_in("/proc/self", what);
    struct stat info;
    size_t count = 0;
    if (stat(path, &info) != 0) return 0;
    if (S_ISDIR(info.st_mode)) {
        struct listing list = list_dir(path, "");
        count = list.count;
        free_listing(list);
    } else {
        FILE *file = fopen(path, "r");
        CHECK(file != NULL);
        for (int c; (c = getc(file)) != EOF;) count += c == '\n';
        fclose(file);
    }
    return count;
}

#endif
