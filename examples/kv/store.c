/* Opening and closing a database, and what goes wrong. */
#include "kv.h"

#include <stdarg.h>

static const char *command_name = "";

void name_program(const char *command) {
    command_name = command;
}

int complain(int code, const char *format, ...) {
    va_list arguments;
    hide_progress();
    fflush(stdout);
    fprintf(stderr, "kv%s%s: ", *command_name ? " " : "", command_name);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    putc('\n', stderr);
    return code;
}

static int code_of(int32_t status) {
    switch (status) {
    case KV_OK:
    case KV_DONE:
        return EXIT_DONE;
    case KV_NOT_FOUND:
    case KV_CONFLICT:
        return EXIT_NO;
    case KV_ERR_CORRUPT:
        return EXIT_DAMAGED;
    case KV_ERR_LOCKED:
        return EXIT_IN_USE;
    case KV_ERR_CANCELLED:
        return EXIT_INTERRUPT;
    default:
        return EXIT_ERROR;
    }
}

int failed(int32_t status) {
    char message[2048];
    /* An outcome is no error, so it has no message of its own. */
    if (status >= 0) return complain(code_of(status), "%s", kv_strerror(status));
    kv_last_error(message, sizeof message);
    if (!message[0]) return complain(code_of(status), "%s", kv_strerror(status));
    return complain(code_of(status), "%s: %s", kv_strerror(status), message);
}

int open_store(const char *path, enum access access, kv_store **store) {
    kv_options *options = kv_options_new();
    int32_t status = options ? KV_OK : KV_ERR_NO_MEMORY;
    *store = NULL;
    if (status == KV_OK) status = kv_options_set(options, KV_OPT_READ_ONLY, access == READING);
    if (status == KV_OK) status = kv_options_set(options, KV_OPT_CREATE_IF_MISSING, access == CREATING);
    if (status == KV_OK) status = kv_open(path, options, store);
    kv_options_free(options);
    return status == KV_OK ? EXIT_DONE : failed(status);
}

int close_store(kv_store *store, int code) {
    int32_t status = kv_close(store);
    if (status == KV_OK) return code;
    int closing = failed(status);
    return code <= EXIT_NO ? closing : code;
}
