/* What the command line says: options anywhere among the operands, until "--". */
#include "kv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int find_long(const struct command *command, const char *name, size_t len) {
    for (int i = 0; i < MAX_OPTIONS && command->options[i].name; i++) {
        const char *known = command->options[i].name;
        if (strlen(known) == len && strncmp(known, name, len) == 0) return i;
    }
    return -1;
}

static int find_letter(const struct command *command, char letter) {
    for (int i = 0; i < MAX_OPTIONS && command->options[i].name; i++) {
        if (command->options[i].letter == letter) return i;
    }
    return -1;
}

static int unknown(const char *option) {
    return complain(EXIT_USAGE, "unknown option %s (a key that begins with - goes after --)", option);
}

/* Takes the option at argv[*at], and its value if that is the next word. */
static int take_long(struct args *args, int argc, char **argv, int *at) {
    const char *name = argv[*at] + 2;
    size_t len = strcspn(name, "=");
    int i = find_long(args->command, name, len);
    if (i < 0) return unknown(argv[*at]);
    if (!args->command->options[i].value) {
        if (name[len] == '=') return complain(EXIT_USAGE, "--%.*s takes no value", (int)len, name);
        args->values[i] = "";
    } else if (name[len] == '=') {
        args->values[i] = name + len + 1;
    } else if (*at + 1 < argc) {
        args->values[i] = argv[++*at];
    } else {
        return complain(EXIT_USAGE, "--%s needs a value: %s", name, args->command->options[i].value);
    }
    return EXIT_DONE;
}

/* The same for letters, of which several may share one dash. */
static int take_letters(struct args *args, int argc, char **argv, int *at) {
    for (const char *letter = argv[*at] + 1; *letter; letter++) {
        int i = find_letter(args->command, *letter);
        if (i < 0) return unknown(argv[*at]);
        if (!args->command->options[i].value) {
            args->values[i] = "";
        } else if (letter[1]) {
            args->values[i] = letter + 1;
            break;
        } else if (*at + 1 < argc) {
            args->values[i] = argv[++*at];
            break;
        } else {
            return complain(EXIT_USAGE, "-%c needs a value: %s", *letter, args->command->options[i].value);
        }
    }
    return EXIT_DONE;
}

int parse_args(const struct command *command, int argc, char **argv, struct args *args) {
    bool only_operands = false;
    *args = (struct args){.command = command, .operands = argv};
    for (int at = 0; at < argc; at++) {
        int code = EXIT_DONE;
        if (only_operands || argv[at][0] != '-' || !argv[at][1]) {
            argv[args->count++] = argv[at];
        } else if (strcmp(argv[at], "--") == 0) {
            only_operands = true;
        } else if (argv[at][1] == '-') {
            code = take_long(args, argc, argv, &at);
        } else {
            code = take_letters(args, argc, argv, &at);
        }
        if (code != EXIT_DONE) return code;
    }
    if (args->count < command->least || (command->most >= 0 && args->count > command->most)) {
        return complain(EXIT_USAGE, "%s: kv %s [OPTION]... %s", args->count < command->least ? "too few arguments" :
                        "too many arguments", command->name, command->operands);
    }
    return EXIT_DONE;
}

bool has(const struct args *args, const char *option) {
    return value_of(args, option) != NULL;
}

const char *value_of(const struct args *args, const char *option) {
    int i = find_long(args->command, option, strlen(option));
    return i < 0 ? NULL : args->values[i];
}

int number_of(const struct args *args, const char *option, uint64_t otherwise, uint64_t *number) {
    const char *text = value_of(args, option);
    char *end;
    *number = otherwise;
    if (!text) return EXIT_DONE;
    errno = 0;
    *number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno) {
        return complain(EXIT_USAGE, "--%s: %s is not a number", option, text);
    }
    return EXIT_DONE;
}
