/*
 * kv: work with a database from the command line.
 *
 *     kv set people.db alice alice@example.org
 *     kv get people.db alice
 *     kv help
 */
#include "kv.h"

#include <string.h>

static const struct command *const COMMANDS[] = {
    &get_command,    &set_command,     &del_command,        &scan_command,   &stats_command,   &dump_command,
    &load_command,   &import_command,  &compact_command,    &verify_command, &salvage_command, &checkpoint_command,
};
enum { COMMAND_COUNT = sizeof COMMANDS / sizeof *COMMANDS };

static const struct command *find(const char *name) {
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(COMMANDS[i]->name, name) == 0) return COMMANDS[i];
    }
    return NULL;
}

static int help_all(void) {
    printf("usage: kv COMMAND [OPTION]... DB [ARGUMENT]...\n"
           "\n"
           "DB is the directory of a database. Commands that only read never create or change it.\n"
           "\n");
    for (int i = 0; i < COMMAND_COUNT; i++) printf("  %-11s %s\n", COMMANDS[i]->name, COMMANDS[i]->summary);
    printf("  %-11s %s\n", "help", "explain a command: kv help get");
    printf("\n"
           "Keys and values on the command line are taken as they are; with --escape \\xx stands for\n"
           "any byte, with --hex all is hexadecimal. -- ends the options.\n"
           "\n"
           "Exit codes:\n"
           "  0    done\n"
           "  1    there is no such key, or a condition did not hold\n"
           "  2    the command line makes no sense\n"
           "  3    an error\n"
           "  4    stored data is damaged\n"
           "  5    another process has the database open\n"
           "  130  stopped by Ctrl-C; what was done so far is whole\n"
           "\n"
           "Examples:\n"
           "  kv set people.db alice alice@example.org\n"
           "  kv get people.db alice\n"
           "  kv scan people.db --sorted\n"
           "  kv dump people.db > people.txt\n"
           "  mdb_dump people.lmdb | kv load people.db\n");
    return EXIT_DONE;
}

static int help_command(const struct command *command) {
    char form[40];
    printf("usage: kv %s%s %s\n\n%s: %s.\n", command->name, command->options[0].name ? " [OPTION]..." : "",
           command->operands, command->name, command->summary);
    if (command->options[0].name) printf("\n");
    for (int i = 0; i < MAX_OPTIONS && command->options[i].name; i++) {
        const struct option *option = &command->options[i];
        snprintf(form, sizeof form, "--%s%s%s", option->name, option->value ? " " : "",
                 option->value ? option->value : "");
        if (option->letter) {
            printf("  -%c, %-17s %s\n", option->letter, form, option->help);
        } else {
            printf("      %-17s %s\n", form, option->help);
        }
    }
    printf("\n%s", command->text);
    return EXIT_DONE;
}

static int help(const char *name) {
    const struct command *command = name ? find(name) : NULL;
    if (!name) return help_all();
    if (command) return help_command(command);
    return complain(EXIT_USAGE, "there is no command %s; kv help lists them", name);
}

static bool is_help(const char *word) {
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* Whether the options ask for help, anywhere. */
static bool asks_for_help(int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (is_help(argv[i])) return true;
    }
    return false;
}

static int run(int argc, char **argv) {
    struct args args;
    if (argc < 2) return complain(EXIT_USAGE, "which command? kv help lists them");
    if (is_help(argv[1])) return help(NULL);
    if (strcmp(argv[1], "help") == 0) return help(argv[2]);
    if (strcmp(argv[1], "--version") == 0) {
        printf("kv %s, library %s\n", KVSTORE_VERSION, kv_version());
        return EXIT_DONE;
    }
    const struct command *command = find(argv[1]);
    if (!command) return complain(EXIT_USAGE, "there is no command %s; kv help lists them", argv[1]);
    name_program(command->name);
    if (asks_for_help(argc - 2, argv + 2)) return help_command(command);
    int code = parse_args(command, argc - 2, argv + 2, &args);
    return code == EXIT_DONE ? command->run(&args) : code;
}

int main(int argc, char **argv) {
    return finish_output(run(argc, argv));
}
