/* What the load generator needs beside its work: clocks, the one way out, a file, and the two sums
 * of a WebSocket handshake (RFC 6455 4.2.2): SHA-1 (FIPS 180-4) and base64.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static double cpu(void) {
    struct timespec at;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

/* Words of the server's inside a line of JSON. */
static void harmless(char *text) {
    for (; *text; text++)
        if (*text < ' ' || *text > '~' || *text == '"' || *text == '\\') *text = '?';
}

/* What went wrong, as the harness reads it. */
__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    harmless(text);
    printf("REPORT {\"error\": \"%s\"}\n", text);
    fflush(stdout);
    _exit(1);
}

static uint64_t chance(void) { /* xorshift64*: masks and keys, no secrets */
    static uint64_t state;
    if (!state) state = (uint64_t)getpid() << 32 ^ (uint64_t)(now() * 1e9) ^ 0x9E3779B97F4A7C15;
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return state * 0x2545F4914F6CDD1D;
}

static uint8_t *contents(const char *name, size_t *size) {
    FILE *file = fopen(name, "rb");
    if (!file) fail("%s: %s", name, strerror(errno));
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*size + 1);
    if (!data || fread(data, 1, *size, file) != *size) fail("%s cannot be read", name);
    fclose(file);
    return data;
}

/* The value of a field, its white space cut off, or "". The head ends in an empty line. */
static const char *field(const char *head, const char *name) {
    static char value[200];
    size_t size = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line[2] != '\r'; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, size) && line[2 + size] == ':') {
            const char *from = line + 3 + size, *to = strstr(from, "\r\n");
            while (from < to && (*from == ' ' || *from == '\t')) from++;
            while (to > from && (to[-1] == ' ' || to[-1] == '\t')) to--;
            snprintf(value, sizeof value, "%.*s", (int)(to - from), from);
            return value;
        }
    return "";
}

static uint32_t rotated(uint32_t value, int by) { return value << by | value >> (32 - by); }

static void sha1_block(uint32_t state[5], const uint8_t *block) {
    static const uint32_t constants[4] = {0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xCA62C1D6};
    uint32_t w[80];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = rotated(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20   ? (b & c) | (~b & d)
                     : i < 40 ? b ^ c ^ d
                     : i < 60 ? (b & c) | (b & d) | (c & d)
                              : b ^ c ^ d;
        uint32_t next = rotated(a, 5) + f + e + constants[i / 20] + w[i];
        e = d, d = c, c = rotated(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

/* Of at most 119 bytes: a key and the GUID are 60. */
static void sha1(const uint8_t *data, size_t size, uint8_t digest[20]) {
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t blocks[128] = {0};
    size_t total = size < 56 ? 64 : 128;
    memcpy(blocks, data, size);
    blocks[size] = 0x80;
    blocks[total - 2] = (uint8_t)(size * 8 >> 8);
    blocks[total - 1] = (uint8_t)(size * 8);
    for (size_t at = 0; at < total; at += 64) sha1_block(state, blocks + at);
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(state[i / 4] >> (24 - i % 4 * 8));
}

static void base64(const uint8_t *data, size_t size, char *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t at = 0; at < size; at += 3) {
        uint32_t three = (uint32_t)data[at] << 16;
        if (at + 1 < size) three |= (uint32_t)data[at + 1] << 8;
        if (at + 2 < size) three |= data[at + 2];
        *text++ = digits[three >> 18];
        *text++ = digits[three >> 12 & 63];
        *text++ = at + 1 < size ? digits[three >> 6 & 63] : '=';
        *text++ = at + 2 < size ? digits[three & 63] : '=';
    }
    *text = 0;
}
