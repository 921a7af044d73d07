/* The load of the row of WebSockets over HTTP/2 (RFC 8441), in the clear and by prior knowledge.
 *
 * One thread and epoll, as in websocket_load.c. A message is masked and put into its DATA frame
 * before anything is measured: sending it is a copy of that frame, and all that are due on a
 * connection leave in one system call. Answers are compared with memcmp as they come in, wherever
 * DATA frames begin and end. An answer is one frame of the shortest form; pings between answers
 * are answered. The first thing that is not right ends the run with the reason.
 *
 *     websocket_http2_load port=8000 connections=8 streams=8 message=FILE seconds=1
 *
 * message     file: the payload of a binary message, which must come back
 *
 * It opens its connections and all their streams and writes `READY {...}`. Each line on stdin is a
 * round, a message in flight on each stream, answered by `REPORT {...}`. The end of stdin ends it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "websocket_tools.h"
#include "http2_tools.h"

#define PATIENCE 10.0        /* seconds without any progress */
#define BUFFER 262144
#define EVENTS 64
#define SPARE 65536          /* room for what is not a message */
#define BUCKETS 1000001      /* us */

enum { WHOLE_BINARY = 0x82, WHOLE_CLOSE = 0x88, WHOLE_PING, WHOLE_PONG };

struct stream {
    uint8_t *wire;           /* the message in its DATA frame, masked */
    uint32_t id;
    bool open;               /* the handshake is over */
    bool owed;               /* a message is to be sent as soon as the windows let it */
    bool asked;              /* an answer has to come */
    size_t matched;          /* bytes of it that were right */
    int64_t room;            /* what may be sent on it */
    uint32_t taken;          /* what came on it since its window was opened again */
    uint8_t control[127], control_size;
    double sent_at;
};

struct connection {
    int fd;
    bool greeted;            /* the server's SETTINGS are there */
    bool writing;            /* epoll tells when it can be written to */
    uint8_t head[9], head_size;
    int kind, flags;
    uint32_t stream, left;   /* of the frame that is coming in */
    uint8_t *payload;        /* of a frame that is not DATA */
    uint32_t payload_size;
    uint8_t *out;
    size_t out_size;
    int owed;                /* streams that owe a message */
    int64_t room, initial;   /* what may be sent on it, and on a new stream */
    uint32_t taken;
    struct stream *streams;
};

static struct {
    int port, connections, streams;
    double seconds;
    const char *path;
} options = {.seconds = 1, .connections = 1, .streams = 1, .path = "/"};

static uint8_t *answer;      /* the frame that must come back */
static size_t answer_size, masked_size, out_room;
static struct connection *all;
static int poller, opened, in_flight;
static bool running;         /* further messages may be sent */
static bool told;            /* a line came on stdin */
static double deadline, progress;
static uint64_t done, bytes, pings;
static uint32_t histogram[BUCKETS];
static uint8_t buffer[BUFFER];

/* ---------------------------------------------------------------- frames out */

static void append(struct connection *c, const void *from, size_t size) {
    if (c->out_size + size > out_room) fail("the server reads nothing of what it asks for");
    memcpy(c->out + c->out_size, from, size);
    c->out_size += size;
}

static void say(struct connection *c, int kind, int flags, uint32_t stream, const uint8_t *payload,
                size_t size) {
    uint8_t head[9];
    put_head(head, size, kind, flags, stream);
    append(c, head, sizeof head);
    append(c, payload, size);
}

static void open_window(struct connection *c, uint32_t stream, uint32_t by) {
    uint8_t increment[4];
    put32(increment, by);
    say(c, WINDOW_UPDATE, 0, stream, increment, sizeof increment);
}

/* Windows are as large as can be and opened again when half is used: never, in a short round. */
static void take(struct connection *c, uint32_t *taken, uint32_t stream, uint32_t size) {
    if ((*taken += size) <= LARGEST / 2) return;
    open_window(c, stream, *taken);
    *taken = 0;
}

static void send_message(struct connection *c, struct stream *s) {
    append(c, s->wire, 9 + masked_size);
    c->room -= (int64_t)masked_size, s->room -= (int64_t)masked_size;
    c->owed--;
    s->owed = false, s->asked = true;
}

static void watch(struct connection *c, int how, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, how, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

/* Whatever is to be said, in one go, and the messages that the server's windows have room for. */
static void flush(struct connection *c) {
    for (int i = 0; c->owed && i < options.streams; i++) {
        struct stream *s = &c->streams[i];
        int64_t room = s->room < c->room ? s->room : c->room;
        if (s->owed && room >= (int64_t)masked_size) send_message(c, s);
    }
    if (c->out_size) {
        ssize_t size = send(c->fd, c->out, c->out_size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (size < 0 && errno != EAGAIN) fail("a connection was lost: %s", strerror(errno));
        if (size > 0) {
            c->out_size -= (size_t)size;
            memmove(c->out, c->out + size, c->out_size);
        }
    }
    if (c->writing != (c->out_size > 0)) {
        c->writing = !c->writing;
        watch(c, EPOLL_CTL_MOD, c->writing ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

static void ask(struct connection *c, struct stream *s, double at) {
    s->owed = true, s->sent_at = at;
    c->owed++, in_flight++;
}

/* ---------------------------------------------------------------- the opening handshake */

static void begin(struct connection *c, int number) {
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const int yes = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("no socket for connection %d: %s", number, strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to))
        fail("connection %d was not taken: %s", number, strerror(errno));
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    uint8_t setting[6] = {0, INITIAL_WINDOW};
    put32(setting + 2, LARGEST);
    append(c, preface, sizeof preface - 1);
    say(c, SETTINGS, 0, 0, setting, sizeof setting);
    open_window(c, 0, LARGEST - WINDOW);
    flush(c);
}

static void request(struct connection *c, struct stream *s) {
    uint8_t block[REQUEST];
    char authority[32];
    snprintf(authority, sizeof authority, "127.0.0.1:%d", options.port);
    say(c, HEADERS, END_HEADERS, s->id, block, put_request(block, authority, options.path));
}

static void greeted(struct connection *c, struct stream *s) {
    int status = status_of(c->payload, c->payload + c->payload_size);
    if (s->open) fail("trailers, which a WebSocket has not");
    if (!(c->flags & END_HEADERS)) fail("a header block in several frames");
    if (c->flags & (PADDED | PRIORITIZED)) fail("a header block with padding or a priority");
    if (!status) fail("the handshake's status cannot be read");
    if (status != 200) fail("the handshake was answered %d", status);
    if (c->flags & END_STREAM) fail("the handshake's answer ended its stream");
    s->open = true;
    opened++;
    progress = now();
}

static void on_settings(struct connection *c) {
    if (c->flags & ACK) return;
    if (c->payload_size % 6) fail("SETTINGS of %u bytes", c->payload_size);
    bool connects = c->greeted;
    for (uint32_t i = 0; i < c->payload_size; i += 6) {
        int name = c->payload[i] << 8 | c->payload[i + 1];
        uint32_t value = get32(c->payload + i + 2);
        if (name == CONNECT_PROTOCOL) connects = value == 1;
        if (name == MAX_STREAMS && value < (uint32_t)options.streams)
            fail("takes %u streams on a connection, not %d", value, options.streams);
        if (name != INITIAL_WINDOW) continue;
        for (int k = 0; k < options.streams; k++) c->streams[k].room += value - c->initial;
        c->initial = value;
    }
    if (!connects) fail("does not offer extended CONNECT (SETTINGS_ENABLE_CONNECT_PROTOCOL)");
    say(c, SETTINGS, ACK, 0, c->payload, 0);
    for (int k = 0; !c->greeted && k < options.streams; k++) request(c, &c->streams[k]);
    c->greeted = true;
}

/* ---------------------------------------------------------------- frames in */

static void note(double seconds) {
    double us = seconds * 1e6;
    histogram[us < BUCKETS ? (int)us : BUCKETS - 1]++;
}

static void whole_message(struct connection *c, struct stream *s) {
    s->matched = 0, s->asked = false;
    in_flight--, done++;
    bytes += answer_size;
    progress = now();
    note(progress - s->sent_at);
    if (running && progress < deadline) ask(c, s, progress);
}

static void whole_control(struct connection *c, struct stream *s) {
    uint8_t size = s->control[1], pong[6 + 125];
    s->control_size = 0;
    if (s->control[0] == WHOLE_CLOSE)
        fail("closed by the server with %d", size < 2 ? 1005 : s->control[2] << 8 | s->control[3]);
    if (s->control[0] == WHOLE_PONG) return;
    if (s->room < 6 + size || c->room < 6 + size) fail("a ping, and no window for its answer");
    uint64_t mask = chance();
    pong[0] = WHOLE_PONG, pong[1] = 0x80 | size;
    memcpy(pong + 2, &mask, 4);
    for (int i = 0; i < size; i++) pong[6 + i] = s->control[2 + i] ^ pong[2 + i % 4];
    say(c, DATA, 0, s->id, pong, 6u + size);
    c->room -= 6 + size, s->room -= 6 + size;
    pings++;
}

static void control_byte(struct connection *c, struct stream *s, uint8_t byte) {
    s->control[s->control_size++] = byte;
    if (s->control_size == 1) {
        if (byte < WHOLE_CLOSE || byte > WHOLE_PONG) fail("a frame that begins with %02x", byte);
        return;
    }
    if (s->control[1] > 125) fail("a control frame that RFC 6455 forbids: %02x", s->control[1]);
    if (s->control_size == 2 + s->control[1]) whole_control(c, s);
}

static void wrong_answer(const uint8_t *due, const uint8_t *came) {
    while (*due == *came) due++, came++;
    fail("a wrong answer: byte %td of its frame is %02x, not %02x", due - answer, *came, *due);
}

static void listen_to(struct connection *c, struct stream *s, const uint8_t *from, size_t size) {
    if (size && !s->open) fail("DATA before the handshake was answered");
    while (size) {
        if (s->control_size || (!s->matched && *from & 8)) {
            control_byte(c, s, *from++);
            size--;
            continue;
        }
        size_t left = answer_size - s->matched, part = size < left ? size : left;
        if (!s->asked) fail("a message that nobody asked for");
        if (memcmp(from, answer + s->matched, part)) wrong_answer(answer + s->matched, from);
        from += part, size -= part, s->matched += part;
        if (s->matched == answer_size) whole_message(c, s);
    }
}

static struct stream *stream_of(struct connection *c) {
    if (c->stream % 2 && c->stream / 2 < (uint32_t)options.streams)
        return &c->streams[c->stream / 2];
    fail("a frame of kind %d on stream %u, which nobody opened", c->kind, c->stream);
}

static void on_window_update(struct connection *c) {
    uint32_t by = c->payload_size == 4 ? get32(c->payload) : 0;
    int64_t *room = c->stream ? &stream_of(c)->room : &c->room;
    if (!by || by > LARGEST || (*room += by) > LARGEST) fail("a WINDOW_UPDATE by %u", by);
}

static void whole_frame(struct connection *c) {
    const uint8_t *payload = c->payload;
    uint32_t size = c->payload_size;
    if (c->kind == DATA && c->flags & END_STREAM) {
        fail("stream %u was ended by the server", c->stream);
    } else if (c->kind == HEADERS) {
        greeted(c, stream_of(c));
    } else if (c->kind == SETTINGS) {
        on_settings(c);
    } else if (c->kind == WINDOW_UPDATE) {
        on_window_update(c);
    } else if (c->kind == PING) {
        if (size != 8) fail("a PING of %u bytes", size);
        if (!(c->flags & ACK)) say(c, PING, ACK, 0, payload, size);
    } else if (c->kind == RST_STREAM) {
        fail("stream %u was reset with error %u", c->stream, size == 4 ? get32(payload) : 0);
    } else if (c->kind == GOAWAY) {
        fail("GOAWAY with error %u: %.*s", size < 8 ? 0 : get32(payload + 4),
             size < 8 ? 0 : (int)(size - 8), payload + 8);
    } else if (c->kind == PUSH_PROMISE || c->kind == CONTINUATION) {
        fail("a frame of kind %d, which has no place here", c->kind);
    }
}

static void whole_head(struct connection *c) {
    const uint8_t *head = c->head;
    c->left = get32(head) >> 8, c->kind = head[3], c->flags = head[4];
    c->stream = get32(head + 5) & LARGEST;
    c->payload_size = 0;
    if (!c->greeted && (c->kind != SETTINGS || c->flags & ACK))
        fail("does not begin with SETTINGS: %08x%08x", get32(head), get32(head + 4));
    if (c->left > LONGEST) fail("a frame of %u bytes", c->left);
    if (c->kind != DATA) return;
    if (c->flags & PADDED) fail("DATA with padding");
    take(c, &c->taken, 0, c->left);
    take(c, &stream_of(c)->taken, c->stream, c->left);
}

static void feed(struct connection *c, const uint8_t *from, size_t size) {
    while (size) {
        size_t part;
        if (c->head_size < 9) {
            part = 9u - c->head_size < size ? 9u - c->head_size : size;
            memcpy(c->head + c->head_size, from, part);
            if ((c->head_size += (uint8_t)part) == 9) whole_head(c);
        } else {
            part = c->left < size ? c->left : size;
            if (c->kind == DATA) listen_to(c, stream_of(c), from, part);
            else memcpy(c->payload + c->payload_size, from, part);
            c->payload_size += (uint32_t)part, c->left -= (uint32_t)part;
        }
        from += part, size -= part;
        if (c->head_size < 9 || c->left) continue;
        whole_frame(c);
        c->head_size = 0;
    }
}

/* ---------------------------------------------------------------- events */

static void on_event(struct connection *c, uint32_t events) {
    if (events & ~(uint32_t)EPOLLOUT) {
        ssize_t size = recv(c->fd, buffer, BUFFER, MSG_DONTWAIT);
        if (!size) fail("a connection was closed by the server");
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

/* One look at everything that is ready. */
static void turn(double until) {
    static struct epoll_event events[EVENTS];
    double wait = until - now();
    int most = wait <= 0 ? 0 : wait < 1 ? (int)(wait * 1e3) + 1 : 1000;
    int count = epoll_wait(poller, events, EVENTS, most);
    if (count < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr) on_event(events[i].data.ptr, events[i].events);
        else on_stdin();
}

static void patiently(void) {
    turn(now() + 1);
    if (now() - progress > PATIENCE)
        fail("no answer for %.0f s, %d open, %d awaited", PATIENCE, opened, in_flight);
}

/* ---------------------------------------------------------------- rounds */

static void open_all(void) {
    progress = now();
    for (int i = 0; i < options.connections; i++) begin(&all[i], i + 1);
    while (opened < options.connections * options.streams) patiently();
}

static double percentile(double share) {
    uint64_t count = 0, seen = 0;
    for (int i = 0; i < BUCKETS; i++) count += histogram[i];
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) && (double)seen >= share * (double)count) return i;
    return 0;
}

static void play(void) {
    memset(histogram, 0, sizeof histogram);
    done = bytes = 0, running = true;
    double begun = now(), used = cpu();
    progress = begun, deadline = begun + options.seconds;
    for (int i = 0; i < options.connections; i++) {
        for (int k = 0; k < options.streams; k++) ask(&all[i], &all[i].streams[k], now());
        flush(&all[i]);
    }
    while (now() < deadline || in_flight) patiently();
    running = false;
    used = cpu() - used;
    /* An answer that comes twice passes for the next one's, until there is no next one. */
    for (double until = now() + 0.005; now() < until;) turn(until);
    printf("REPORT {\"done\": %llu, \"bytes\": %llu, \"seconds\": %.6f, \"cpu_seconds\": %.6f, "
           "\"p50_us\": %.0f, \"p99_us\": %.0f, \"pings\": %llu, \"open\": %d}\n",
           (unsigned long long)done, (unsigned long long)bytes, progress - begun, used,
           percentile(0.5), percentile(0.99), (unsigned long long)pings, opened);
    fflush(stdout);
}


/* The answer's frame, and the size of the message's. */
static void expect(const uint8_t *message, size_t size) {
    size_t head = size < 126 ? 2 : 4;
    answer_size = head + size, masked_size = answer_size + 4;
    if (masked_size > LONGEST) fail("a message of %zu bytes does not fit into a DATA frame", size);
    answer = malloc(answer_size);
    if (!answer) fail("no memory");
    answer[0] = WHOLE_BINARY, answer[1] = (uint8_t)(head == 2 ? size : 126);
    if (head == 4) answer[2] = (uint8_t)(size >> 8), answer[3] = (uint8_t)size;
    memcpy(answer + head, message, size);
}

static uint8_t *wire(uint32_t stream) {
    size_t head = answer[1] < 126 ? 2 : 4;
    uint8_t *data = malloc(9 + masked_size), *frame = data + 9;
    uint64_t mixed = chance() | 0x01010101;
    if (!data) fail("no memory");
    put_head(data, masked_size, DATA, 0, stream);
    memcpy(frame, answer, head);
    frame[1] |= 0x80;
    memcpy(frame + head, &mixed, 4);
    for (size_t i = head; i < answer_size; i++)
        frame[i + 4] = answer[i] ^ frame[head + (i - head) % 4];
    return data;
}

static void prepare(struct connection *c) {
    c->room = c->initial = WINDOW;
    c->payload = malloc(LONGEST);
    c->out = malloc(out_room);
    c->streams = calloc((size_t)options.streams, sizeof *c->streams);
    if (!c->payload || !c->out || !c->streams) fail("no memory");
    for (int k = 0; k < options.streams; k++) {
        struct stream *s = &c->streams[k];
        s->id = (uint32_t)(2 * k + 1), s->room = WINDOW, s->wire = wire(s->id);
    }
}

static void set(const char *name, const char *value, const char **message) {
    if (!strcmp(name, "port")) options.port = atoi(value);
    else if (!strcmp(name, "connections")) options.connections = atoi(value);
    else if (!strcmp(name, "streams")) options.streams = atoi(value);
    else if (!strcmp(name, "seconds")) options.seconds = atof(value);
    else if (!strcmp(name, "path")) options.path = value;
    else if (!strcmp(name, "message")) *message = value;
    else fail("no such option: %s=%s", name, value);
}

int main(int count, char **arguments) {
    const char *message = NULL;
    for (int i = 1; i < count; i++) {
        char *value = strchr(arguments[i], '=');
        if (!value) fail("not name=value: %s", arguments[i]);
        *value++ = 0;
        set(arguments[i], value, &message);
    }
    if (!message) fail("which message?");
    size_t size;
    uint8_t *data = contents(message, &size);
    expect(data, size);
    out_room = SPARE + (size_t)options.streams * (9 + REQUEST + 9 + masked_size);
    struct epoll_event command = {.events = EPOLLIN, .data.ptr = NULL};
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &command)) fail("stdin must be a pipe");
    all = calloc((size_t)options.connections, sizeof *all);
    if (!all) fail("no memory");
    for (int i = 0; i < options.connections; i++) prepare(&all[i]);
    double begun = now();
    open_all();
    printf("READY {\"opened\": %d, \"seconds\": %.6f}\n", opened, now() - begun);
    fflush(stdout);
    for (;;) {
        while (!told) turn(now() + 1);
        told = false;
        play();
    }
}
