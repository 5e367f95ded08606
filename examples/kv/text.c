/* Bytes as text and back. */
#include "kv.h"

#include <stdlib.h>
#include <string.h>

int form_of(const struct args *args, enum form otherwise, enum form *form) {
    if (has(args, "escape") && has(args, "hex")) return complain(EXIT_USAGE, "--escape and --hex exclude each other");
    *form = has(args, "hex") ? HEX : has(args, "escape") ? ESCAPED : otherwise;
    return EXIT_DONE;
}

bool append(struct bytes *bytes, const void *data, size_t len) {
    if (len > bytes->capacity - bytes->len) {
        size_t capacity = bytes->capacity < 256 ? 256 : bytes->capacity;
        while (capacity - bytes->len < len) {
            if (capacity > SIZE_MAX / 2) return false;
            capacity *= 2;
        }
        uint8_t *grown = realloc(bytes->data, capacity);
        if (!grown) return false;
        bytes->data = grown;
        bytes->capacity = capacity;
    }
    if (len) memcpy(bytes->data + bytes->len, data, len);
    bytes->len += len;
    return true;
}

bool append_byte(struct bytes *bytes, uint8_t byte) {
    if (bytes->len == bytes->capacity) return append(bytes, &byte, 1);
    bytes->data[bytes->len++] = byte;
    return true;
}

void free_bytes(struct bytes *bytes) {
    free(bytes->data);
    *bytes = (struct bytes){NULL, 0, 0};
}

int hex_digit(int c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The byte that two digits stand for, or -1. Stops at the end of a string. */
static int hex_pair(const char *text) {
    int high = hex_digit(text[0]);
    int low = high < 0 ? -1 : hex_digit(text[1]);
    return low < 0 ? -1 : high << 4 | low;
}

int decode(const char *text, enum form form, struct bytes *bytes) {
    bool fits = true;
    *bytes = (struct bytes){NULL, 0, 0};
    if (form == RAW) fits = append(bytes, text, strlen(text));
    for (const char *at = text; form != RAW && *at && fits;) {
        if (form == ESCAPED && (at[0] != '\\' || at[1] == '\\')) {
            fits = append_byte(bytes, (uint8_t)*at);
            at += at[0] == '\\' ? 2 : 1;
            continue;
        }
        if (form == ESCAPED) at++;
        int byte = hex_pair(at);
        if (byte < 0) {
            free_bytes(bytes);
            return complain(EXIT_USAGE, "%s: %s", text, form == HEX ? "not pairs of hexadecimal digits" :
                            "a backslash needs two hexadecimal digits or another one");
        }
        fits = append_byte(bytes, (uint8_t)byte);
        at += 2;
    }
    if (fits) return EXIT_DONE;
    free_bytes(bytes);
    return complain(EXIT_ERROR, "out of memory");
}

/* What one byte becomes: one character or three. */
static size_t escape(uint8_t byte, char text[3]) {
    static const char DIGITS[] = "0123456789abcdef";
    /* A backslash as its number too: then every reader of this format agrees on what it means. */
    if (byte >= 0x20 && byte < 0x7f && byte != '\\') {
        text[0] = (char)byte;
        return 1;
    }
    text[0] = '\\';
    text[1] = DIGITS[byte >> 4];
    text[2] = DIGITS[byte & 15];
    return 3;
}

void print_bytes(FILE *file, enum form form, const uint8_t *data, size_t len) {
    char chunk[3 * 1024], text[3];
    if (form == RAW) {
        if (len) fwrite(data, 1, len, file);
        return;
    }
    /* By chunks, so that a value of any size takes no memory. */
    for (size_t at = 0; at < len && !ferror(file);) {
        size_t used = 0;
        for (size_t end = len - at < 1024 ? len : at + 1024; at < end; at++) {
            if (form == HEX) {
                chunk[used++] = "0123456789abcdef"[data[at] >> 4];
                chunk[used++] = "0123456789abcdef"[data[at] & 15];
            } else {
                size_t width = escape(data[at], text);
                memcpy(chunk + used, text, width);
                used += width;
            }
        }
        fwrite(chunk, 1, used, file);
    }
}

const char *size_text(uint64_t size, char text[static 16]) {
    static const char *const UNITS[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double number = (double)size;
    int unit = 0;
    while (number >= 1023.95 && unit < 6) {
        number /= 1024;
        unit++;
    }
    snprintf(text, 16, unit ? "%.1f %s" : "%.0f %s", number, UNITS[unit]);
    return text;
}
