/* The octets of HTTP/2 that a load generator writes and reads: the head of a frame (RFC 9113 4.1),
 * the request that opens a WebSocket, and the status that answers it.
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LONGEST 16384        /* of a frame's payload: RFC 9113 6.5.2, neither side raises it */
#define WINDOW 65535         /* RFC 9113 6.9.2 */
#define LARGEST 0x7FFFFFFF   /* of a window */
#define REQUEST 512          /* no header block of ours is longer */

enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE,
       CONTINUATION };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, PRIORITIZED = 0x20 };
enum { MAX_STREAMS = 3, INITIAL_WINDOW = 4, CONNECT_PROTOCOL = 8 };

static void put32(uint8_t *to, uint32_t value) {
    to[0] = (uint8_t)(value >> 24), to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8), to[3] = (uint8_t)value;
}

static uint32_t get32(const uint8_t *from) {
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static void put_head(uint8_t *to, size_t size, int kind, int flags, uint32_t stream) {
    put32(to, (uint32_t)size << 8 | (uint32_t)kind);
    to[4] = (uint8_t)flags;
    put32(to + 5, stream);
}

static size_t put_string(uint8_t *to, const char *text) {
    size_t size = strlen(text);
    if (size > 126) fail("longer than a request of the benchmark may be: %.40s...", text);
    to[0] = (uint8_t)size;
    memcpy(to + 1, text, size);
    return 1 + size;
}

/* RFC 8441 4. Literals without indexing (RFC 7541 6.2.2): no block depends on another. */
static size_t put_request(uint8_t *block, const char *authority, const char *path) {
    uint8_t *at = block;
    *at++ = 0x02, at += put_string(at, "CONNECT"); /* :method */
    *at++ = 0x86;                                  /* :scheme: http */
    *at++ = 0x04, at += put_string(at, path);      /* :path */
    *at++ = 0x01, at += put_string(at, authority); /* :authority */
    *at++ = 0x00, at += put_string(at, ":protocol"), at += put_string(at, "websocket");
    *at++ = 0x00, at += put_string(at, "sec-websocket-version"), at += put_string(at, "13");
    return (size_t)(at - block);
}

/* Three digits in the code of RFC 7541 B, where 0 to 2 have five bits, the others six; 0 if not. */
static int huffman_status(uint32_t bits) {
    int status = 0;
    for (int i = 0; i < 3; i++) {
        int five = (int)(bits >> 27), six = (int)(bits >> 26), digit = five < 3 ? five : six - 22;
        if (digit < 0 || digit > 9 || (five >= 3 && digit < 3)) return 0;
        status = status * 10 + digit;
        bits <<= five < 3 ? 5 : 6;
    }
    return status;
}

/* The status that begins a block, behind updates of the table's size (RFC 7541 6.3); 0 if it is
 * written in a way that nobody has a reason for. 200 is 0x88 almost everywhere. */
static int status_of(const uint8_t *at, const uint8_t *end) {
    static const int indexed[] = {200, 204, 206, 304, 400, 404, 500};
    while (at < end && (*at & 0xE0) == 0x20)
        if ((*at++ & 31) == 31)
            while (at < end && *at++ & 0x80) continue;
    if (at == end) return 0;
    if (*at >= 0x88 && *at <= 0x8E) return indexed[*at - 0x88];
    int name = *at & 0x80 ? 0 : *at & (*at & 0x40 ? 0x3F : 0x0F);
    if (name < 8 || name > 14 || end - at < 2 || end - at < 2 + (at[1] & 127)) return 0;
    const uint8_t *value = at + 2;
    if (at[1] == 0x82) return huffman_status((uint32_t)value[0] << 24 | (uint32_t)value[1] << 16);
    if (at[1] == 0x83) return huffman_status(get32(at + 1) << 8);
    if (at[1] != 3) return 0;
    return (value[0] - '0') * 100 + (value[1] - '0') * 10 + value[2] - '0';
}
