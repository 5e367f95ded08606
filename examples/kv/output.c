/* What is printed must arrive, or the program says that it did not. */
#include "kv.h"

#include <errno.h>
#include <string.h>

static int reason; /* the errno of the write that failed */

bool output_works(void) {
    if (!ferror(stdout)) return true;
    if (!reason) reason = errno;
    return false;
}

int finish_output(int code) {
    bool works = output_works();
    /* Closing too: some file systems tell of a full disk no earlier. */
    if (fclose(stdout) == 0 && works) return code;
    return complain(EXIT_ERROR, "writing to standard output: %s", strerror(reason ? reason : errno));
}
