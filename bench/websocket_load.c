/* The load of the WebSocket rows.
 *
 * One thread and epoll. Frames are masked once, before anything is measured, and an answer is
 * compared with memcmp as it comes in: sending and looking cost a system call each, and little
 * beside. The first thing that is not right ends the run with the reason.
 *
 *     websocket_load mode=echo port=8000 connections=64 message=FILE seconds=1
 *
 * mode        echo | fanout | hold | handshakes
 * message     file: the payload of a message as it is sent (compressed already if deflate=1)
 * answer      file: the payload that must come back (default: the same)
 * plain=1     the answer comes uncompressed although deflate is agreed on
 * text=1      messages are text, not binary
 * deflate=1   offer permessage-deflate, each message on its own; the server has to agree
 * depth       messages in flight on one connection (echo)
 * at_once     connections that are being opened at the same time
 *
 * It opens its connections and writes `READY {...}`. Each line on stdin is a round, answered by
 * `REPORT {...}`; pings are answered meanwhile. The end of stdin is the end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "websocket_tools.h"

#define PATIENCE 10.0        /* seconds without any progress */
#define SOURCES 8            /* of 127.0.0.x: no single one runs out of ports */
#define BUFFER (256 * 1024)
#define EVENTS 512
#define FINE 500000          /* us that the histogram tells apart; ms from there on */
#define BUCKETS (FINE + 10001)
#define EXTENSION "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

enum mode { ECHO, FANOUT, HOLD, HANDSHAKES };
enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

struct connection {
    int fd;                  /* -1: none */
    bool open;               /* the handshake is over */
    bool writing;            /* epoll tells when it can be written to */
    bool in_frame, in_message;
    uint8_t head[10], head_size;
    uint64_t left;           /* of the frame's payload */
    size_t checked;          /* bytes of the message that were right */
    unsigned owed;           /* frames to send, `sent` bytes of the first are gone */
    size_t sent;
    unsigned waiting;        /* answers that have to come */
    unsigned oldest;         /* of `times` */
    double *times;           /* when the messages in flight were sent */
    uint8_t control[125], control_size;
    uint8_t pong[131], pong_size;
    char accept[29];
};

static struct {
    enum mode mode;
    int port, connections, depth, at_once;
    bool text, deflate, plain;
    double seconds;
    const char *path;
} options = {.depth = 1, .at_once = 32, .seconds = 1, .connections = 1, .path = "/"};

static uint8_t *frames;      /* `depth` masked frames, one behind the other */
static size_t frame_size, answer_size;
static uint8_t *answer;
static struct connection *all;
static int poller, started, opened, in_flight;
static bool running;         /* further messages may be sent */
static bool told;            /* a line came on stdin */
static double deadline, progress;
static uint64_t done, bytes, pings;
static uint32_t histogram[BUCKETS];
static uint8_t buffer[BUFFER + 1];
static char agreed[200];

/* ---------------------------------------------------------------- the opening handshake */

static void watch(struct connection *c, int how, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, how, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

static void begin(struct connection *c) {
    const struct linger reset = {1, 0}; /* leaves no TIME_WAIT behind, here or there */
    const int yes = 1;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(started++ % SOURCES));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)options.port);
    double *times = c->times;
    memset(c, 0, sizeof *c);
    c->times = times;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("no socket for connection %d: %s", started, strerror(errno));
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) fail("bind: %s", strerror(errno));
    c->times[0] = now();
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to))
        fail("connection %d was not taken: %s", started, strerror(errno));
    uint64_t nonce[2] = {chance(), chance()};
    char key[64], request[1024];
    uint8_t digest[20];
    base64((uint8_t *)nonce, sizeof nonce, key);
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Key: %s\r\n"
                        "Sec-WebSocket-Version: 13\r\n%s\r\n",
                        options.path, options.port, key,
                        options.deflate ? "Sec-WebSocket-Extensions: " EXTENSION "\r\n" : "");
    strcat(key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    sha1((uint8_t *)key, strlen(key), digest);
    base64(digest, sizeof digest, c->accept);
    if (send(c->fd, request, (size_t)size, MSG_NOSIGNAL) != size)
        fail("connection %d was ended before its request was sent", started);
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

/* True when the answer is whole and right. What follows it stays in the socket. */
static bool greeted(struct connection *c) {
    char head[8193];
    ssize_t size = recv(c->fd, head, sizeof head - 1, MSG_PEEK | MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return false;
    if (size <= 0) fail("a connection was closed instead of an answer to the handshake");
    char *end = memmem(head, (size_t)size, "\r\n\r\n", 4);
    if (!end && size == sizeof head - 1) fail("the handshake's answer does not end");
    if (!end) return false;
    end[4] = 0;
    if (strlen(head) != (size_t)(end + 4 - head)) fail("a NUL in the handshake's answer");
    if (recv(c->fd, buffer, (size_t)(end + 4 - head), 0) != end + 4 - head) fail("recv");
    if (strncmp(head, "HTTP/1.1 101", 12)) fail("the handshake was answered %.40s", head);
    if (strcmp(field(head, "Sec-WebSocket-Accept"), c->accept))
        fail("the handshake's answer has a wrong Sec-WebSocket-Accept");
    const char *extensions = field(head, "Sec-WebSocket-Extensions");
    if (options.deflate && !strstr(extensions, "permessage-deflate")) fail("does not compress");
    if (!options.deflate && *extensions) fail("agreed to %s, which was not offered", extensions);
    snprintf(agreed, sizeof agreed, "%s", extensions);
    harmless(agreed);
    return true;
}

/* ---------------------------------------------------------------- frames out and in */

/* Send what is owed, a pong first where it may go: between two frames. */
static void flush(struct connection *c) {
    while (c->owed || c->pong_size) {
        bool pong = c->pong_size && !c->sent;
        const uint8_t *from = pong ? c->pong : frames + c->sent;
        size_t most = pong ? c->pong_size : c->owed * frame_size - c->sent;
        ssize_t size = send(c->fd, from, most, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (size < 0) {
            if (errno != EAGAIN) fail("a connection was lost: %s", strerror(errno));
            if (!c->writing) watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            c->writing = true;
            return;
        }
        if (pong) {
            if ((size_t)size != most) fail("a pong was cut");
            c->pong_size = 0;
        } else {
            size_t total = c->sent + (size_t)size;
            c->owed -= (unsigned)(total / frame_size);
            c->sent = total % frame_size;
        }
    }
    if (c->writing) watch(c, EPOLL_CTL_MOD, EPOLLIN);
    c->writing = false;
}

static void ask(struct connection *c, double at) {
    c->times[(c->oldest + c->waiting) % (unsigned)options.depth] = at;
    c->waiting++, c->owed++, in_flight++;
}

static void note(double seconds) {
    double us = seconds * 1e6, ms = seconds * 1e3;
    histogram[us < FINE ? (int)us : ms < 10000 ? FINE + (int)ms : BUCKETS - 1]++;
}

static void whole_message(struct connection *c) {
    if (c->checked != answer_size)
        fail("an answer of %zu bytes, not of %zu", c->checked, answer_size);
    if (c->waiting == c->owed) fail("a message that nobody asked for");
    c->checked = 0;
    c->waiting--, in_flight--, done++;
    bytes += answer_size;
    progress = now();
    if (options.mode != ECHO) return;
    note(progress - c->times[c->oldest]);
    c->oldest = (c->oldest + 1) % (unsigned)options.depth;
    if (running && progress < deadline) ask(c, progress);
}

static void whole_frame(struct connection *c) {
    int kind = c->head[0] & 15;
    c->in_frame = false, c->head_size = 0;
    if (kind == CLOSE)
        fail("closed by the server with %d",
             c->control_size < 2 ? 1005 : c->control[0] << 8 | c->control[1]);
    if (kind == PING) {
        uint64_t mask = chance();
        pings++;
        c->pong[0] = 0x80 | PONG, c->pong[1] = (uint8_t)(0x80 | c->control_size);
        memcpy(c->pong + 2, &mask, 4);
        for (int i = 0; i < c->control_size; i++)
            c->pong[6 + i] = c->control[i] ^ c->pong[2 + i % 4];
        c->pong_size = (uint8_t)(6 + c->control_size);
    } else if (kind != PONG) {
        c->in_message = !(c->head[0] & 0x80);
        if (!c->in_message) whole_message(c);
    }
}

static void whole_head(struct connection *c) {
    uint8_t first = c->head[0], flags = first & 0x70, kind = first & 15;
    uint64_t length = c->head[1] & 127;
    if (length >= 126) {
        int more = length == 126 ? 2 : 8;
        length = 0;
        for (int i = 0; i < more; i++) length = length << 8 | c->head[2 + i];
    }
    if (kind >= CLOSE) {
        if (!(first & 0x80) || flags || length > 125 || kind > PONG)
            fail("a control frame that RFC 6455 forbids: %02x %02x", first, c->head[1]);
        c->control_size = 0;
    } else {
        int expected = c->in_message ? 0 : options.text ? TEXT : BINARY;
        uint8_t compressed = !c->in_message && options.deflate && !options.plain ? 0x40 : 0;
        if (kind != expected) fail("a frame with opcode %d, not %d", kind, expected);
        if (flags != compressed) fail("a frame with the flags %02x, not %02x", flags, compressed);
    }
    c->left = length;
    c->in_frame = true;
    if (!length) whole_frame(c);
}

static void feed(struct connection *c, const uint8_t *from, size_t size) {
    while (size) {
        if (!c->in_frame) {
            c->head[c->head_size++] = *from++, size--;
            uint8_t length = c->head[1] & 127;
            if (c->head_size >= 2 && c->head[1] & 0x80) fail("a masked frame");
            if (c->head_size >= 2 && c->head_size == (length < 126 ? 2 : length == 126 ? 4 : 10))
                whole_head(c);
            continue;
        }
        size_t part = size < c->left ? size : (size_t)c->left;
        if ((c->head[0] & 15) >= CLOSE) {
            memcpy(c->control + c->control_size, from, part);
            c->control_size += (uint8_t)part;
        } else {
            if (part > answer_size - c->checked || memcmp(answer + c->checked, from, part))
                fail("a wrong answer, at most %zu bytes of it right", c->checked + part);
            c->checked += part;
        }
        from += part, size -= part, c->left -= part;
        if (!c->left) whole_frame(c);
    }
}

/* ---------------------------------------------------------------- events */

static void on_open(struct connection *c) {
    opened++;
    progress = now();
    if (options.mode == HANDSHAKES) {
        note(progress - c->times[0]);
        done++;
        close(c->fd); /* a reset: SO_LINGER is 0 */
        c->fd = -1, in_flight--;
        if (running && progress < deadline) in_flight++, begin(c);
    } else {
        c->open = true;
    }
}

static void on_event(struct connection *c, uint32_t events) {
    if (c->fd < 0) return;
    if (!c->open) {
        if (greeted(c)) on_open(c);
        return;
    }
    if (events & ~(uint32_t)EPOLLOUT) {
        ssize_t size = recv(c->fd, buffer, BUFFER, MSG_DONTWAIT);
        if (!size) fail("a connection was closed without a close frame");
        if (size < 0 && errno != EAGAIN) fail("a connection was lost: %s", strerror(errno));
        if (size > 0) feed(c, buffer, (size_t)size);
    }
    flush(c);
}

static void on_stdin(void) {
    char line[64];
    ssize_t size = read(0, line, sizeof line);
    if (size <= 0) _exit(0);
    told = told || memchr(line, '\n', (size_t)size);
}

/* One look at everything that is ready; how much that was. */
static int turn(double until) {
    static struct epoll_event events[EVENTS];
    double wait = until - now();
    int count = epoll_wait(poller, events, EVENTS, wait <= 0 ? 0 : wait < 1 ? (int)(wait * 1e3) + 1
                                                                           : 1000);
    if (count < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr) on_event(events[i].data.ptr, events[i].events);
        else on_stdin();
    return count;
}

static void patiently(void) {
    turn(now() + 1);
    if (now() - progress > PATIENCE)
        fail("no answer for %.0f s, %d open, %d awaited", PATIENCE, opened, in_flight);
}

/* ---------------------------------------------------------------- rounds */

static int total(void) { return options.connections + (options.mode == FANOUT); }

static void open_all(void) {
    progress = now();
    for (int next = 0; opened < total();) {
        while (next < total() && next - opened < options.at_once) begin(&all[next++]);
        patiently();
    }
}

/* An answer that comes twice passes for the next one's, until there is no next one. */
static void listen_on(void) {
    double until = now() + 0.005;
    while (now() < until) turn(until);
}

static void drain(void) {
    while (in_flight) patiently();
}

static void echo_round(void) {
    for (int i = 0; i < options.connections; i++) {
        for (int k = 0; k < options.depth; k++) ask(&all[i], now());
        flush(&all[i]);
    }
    while (now() < deadline) patiently();
    drain();
}

/* One broadcast after another; `note` gets the time to the last delivery of each. */
static int fanout_round(void) {
    struct connection *speaker = &all[options.connections];
    int broadcasts = 0;
    do {
        for (int i = 0; i < options.connections; i++) all[i].waiting = 1;
        in_flight = options.connections;
        double begun = now();
        speaker->owed = 1;
        flush(speaker);
        drain();
        note(progress - begun);
        broadcasts++;
    } while (now() < deadline);
    return broadcasts;
}

static void handshakes_round(void) {
    for (int i = 0; i < options.connections; i++) in_flight++, begin(&all[i]);
    while (now() < deadline) patiently();
    drain();
}

static double percentile(double share) {
    uint64_t count = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) count += histogram[i];
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) && (double)seen >= share * (double)count)
            return i < FINE ? i : (i - FINE) * 1000;
    return 0;
}

static void play(void) {
    int broadcasts = 0;
    memset(histogram, 0, sizeof histogram);
    done = bytes = 0, running = true;
    double begun = now(), used = cpu();
    progress = begun, deadline = begun + options.seconds;
    if (options.mode == ECHO) echo_round();
    if (options.mode == FANOUT) broadcasts = fanout_round();
    if (options.mode == HANDSHAKES) handshakes_round();
    if (options.mode == HOLD) while (turn(0)) progress = now();
    running = false;
    used = cpu() - used;
    if (options.mode == ECHO || options.mode == FANOUT) listen_on();
    printf("REPORT {\"done\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"cpu_seconds\": %.6f, "
           "\"p50_us\": %.0f, \"p99_us\": %.0f, \"pings\": %llu, \"open\": %d, "
           "\"broadcasts\": %d}\n",
           (unsigned long long)done, (unsigned long long)bytes, progress - begun, used,
           percentile(0.5), percentile(0.99), (unsigned long long)pings,
           options.mode == HANDSHAKES ? 0 : opened, broadcasts);
    fflush(stdout);
}

/* ---------------------------------------------------------------- options */

static void prepare(const uint8_t *message, size_t size) {
    size_t head = size < 126 ? 6 : size < 65536 ? 8 : 14;
    frame_size = head + size;
    frames = malloc(frame_size * (size_t)options.depth);
    if (!frames) fail("no memory");
    for (int k = 0; k < options.depth; k++) {
        uint8_t *frame = frames + frame_size * (size_t)k, *mask = frame + head - 4;
        uint64_t mixed = chance() | 0x01010101;
        frame[0] = (uint8_t)(0x80 | (options.deflate ? 0x40 : 0) | (options.text ? TEXT : BINARY));
        frame[1] = (uint8_t)(0x80 | (head == 6 ? size : head == 8 ? 126 : 127));
        for (size_t i = 2; i < head - 4; i++) frame[i] = (uint8_t)(size >> 8 * (head - 5 - i));
        memcpy(mask, &mixed, 4);
        for (size_t i = 0; i < size; i++) frame[head + i] = message[i] ^ mask[i % 4];
    }
}

static void set(const char *name, const char *value, const char **message, const char **back) {
    static const char *modes[] = {"echo", "fanout", "hold", "handshakes"};
    struct { const char *name; int *value; } numbers[] = {
        {"port", &options.port}, {"connections", &options.connections},
        {"depth", &options.depth}, {"at_once", &options.at_once}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!strcmp(name, numbers[i].name) && (*numbers[i].value = atoi(value)) > 0) return;
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, "mode") && !strcmp(value, modes[i])) {
            options.mode = (enum mode)i;
            return;
        }
    if (!strcmp(name, "seconds")) options.seconds = atof(value);
    else if (!strcmp(name, "path")) options.path = value;
    else if (!strcmp(name, "message")) *message = value;
    else if (!strcmp(name, "answer")) *back = value;
    else if (!strcmp(name, "text")) options.text = atoi(value);
    else if (!strcmp(name, "deflate")) options.deflate = atoi(value);
    else if (!strcmp(name, "plain")) options.plain = atoi(value);
    else fail("no such option: %s=%s", name, value);
}

int main(int count, char **arguments) {
    const char *message = NULL, *back = NULL;
    for (int i = 1; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        if (!value) fail("not name=value: %s", arguments[i]);
        *value = 0;
        set(arguments[i], value + 1, &message, &back);
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (message) {
        size_t size;
        uint8_t *data = contents(message, &size);
        prepare(data, size);
        answer = back ? contents(back, &answer_size) : data;
        if (!back) answer_size = size;
    } else if (options.mode == ECHO || options.mode == FANOUT) {
        fail("which message?");
    }
    struct epoll_event command = {.events = EPOLLIN, .data.ptr = NULL};
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &command)) fail("stdin must be a pipe");
    all = calloc((size_t)total(), sizeof *all);
    double *times = calloc((size_t)total() * (size_t)options.depth, sizeof *times);
    if (!all || !times) fail("no memory");
    for (int i = 0; i < total(); i++) all[i].fd = -1, all[i].times = times + i * options.depth;
    double begun = now();
    if (options.mode != HANDSHAKES) open_all();
    printf("READY {\"opened\": %d, \"seconds\": %.6f, \"agreed\": \"%s\"}\n", opened,
           now() - begun, agreed);
    fflush(stdout);
    for (;;) {
        while (!told) turn(now() + 1);
        told = false;
        play();
    }
}
