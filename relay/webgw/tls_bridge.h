/*
 * Carries between a TLS connection and a plain TCP socket: at a public node towards the front door, at an agent towards
 * its target.
 *
 *   other side ══ TLS ══► came ──► plain socket       came: at most a little over 64 KiB; while there is no socket, 8 KiB,
 *   other side ◄══ TLS ══ first, then plain socket    for the owner to read: tls_bridge_came(), tls_bridge_skip()
 *
 * The end of a direction goes on as an end, a reset as a reset: what breaks off without TLS's goodbye was reset. What is
 * read of the plain socket leaves as a record at once; nothing of it waits here.
 *
 * Or TLS ends before there is a plain socket, each direction with its goodbye, and the connection goes on without:
 *
 *   tls_bridge_part() ─► the other side's goodbye, and ours is sent ─► parted() ─► tls_bridge_release(): the socket, and what came
 *
 * Loop only. All that is told is told from the loop.
 */
#pragma once

#include "common/tls_stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_BRIDGE_EARLY 8192 /* bytes that may come before there is a plain socket; then TLS is not read any more */

struct tls_bridge_ports {
	void *owner;
	void (*ready)(void *owner); /* TLS's handshake is done */
	void (*came)(void *owner);  /* bytes, while they are not passed on */
	void (*parted)(void *owner); /* of who was told tls_bridge_part(): nothing is TLS's any more */
	/* The last word: both ways had their end, why->code is 0; or it broke. The owner closes. */
	void (*over)(void *owner, const struct error *why);
};

/* Owned by the caller until closed; the fields are the bridge's, but stream's may be asked. */
struct tls_bridge {
	struct tls_bridge_ports ports;
	struct tls_stream stream;
	uv_poll_t poll;
	uv_timer_t timer;
	int fd;		   /* plain; -1: none */
	int events;	   /* it is watched for */
	uint8_t *came;	   /* on the heap */
	size_t n_came, came_at, came_size;
	uint8_t *first;	   /* goes out before what is read; on the heap */
	size_t n_first, first_at;
	size_t n_in_a_row; /* read of the plain socket since it was polled readable */
	bool passes;
	bool parts, has_parted, is_raw; /* was asked to; our goodbye is sent; the other side's came, and what is in came is behind it */
	bool is_released;
	bool is_ready, is_paused, is_over;
	bool has_read_all, has_shut_down;     /* plain → TLS */
	bool has_heard_all, has_written_all; /* TLS → plain */
	int broken;		   /* -errno, to be told */
	uint64_t bytes_in, bytes_out; /* passed on: to the plain socket, from it */
	uint8_t n_open;
	void (*closed)(void *owner);
};

/* As tls_stream_open_server() and _client(): fd is taken over. 0 or -ENOMEM, when nothing has to be closed. */
P2P_CHECK int tls_bridge_open_server(struct tls_bridge *bridge, struct tls_host *host, SSL_CTX *context, int fd,
				     const struct tls_bridge_ports *ports);
P2P_CHECK int tls_bridge_open_client(struct tls_bridge *bridge, struct tls_host *host, SSL_CTX *context,
				     const struct endpoint *remote, const char *server_name, uint64_t timeout_ms,
				     const struct tls_bridge_ports *ports);
/* Resets what is not over. closed(owner) follows from the loop. Once. */
void tls_bridge_close(struct tls_bridge *bridge, void (*closed)(void *owner));

/* Has one of both ways ended, and the other not? The next is how many bytes have moved, both ways. */
bool tls_bridge_is_half_closed(const struct tls_bridge *bridge);
uint64_t tls_bridge_moved(const struct tls_bridge *bridge);

/* What came and was not passed on, borrowed until the next call. */
const uint8_t *tls_bridge_came(const struct tls_bridge *bridge, size_t *ret_n);
void tls_bridge_skip(struct tls_bridge *bridge, size_t n);
/* Goes out before what is read of the plain socket, behind what was said before. Copied. */
void tls_bridge_say(struct tls_bridge *bridge, const void *bytes, size_t n);

/*
 * Behind what was said TLS ends in our direction, and what the other side says has to be read to the last byte (came, skip) before
 * its own ends. Instead of tls_bridge_join().
 */
void tls_bridge_part(struct tls_bridge *bridge);
/*
 * From inside parted, or later: the socket without TLS, which is the caller's. ret_came: what came already, of malloc(); NULL: nothing. The
 * bridge is then closed as ever. -errno: there is no descriptor, and nothing is returned.
 */
P2P_CHECK int tls_bridge_release(struct tls_bridge *bridge, uint8_t **ret_came, size_t *ret_n);

/*
 * The plain socket, connected and non-blocking; taken over. What is read of it goes out; what came goes in once
 * tls_bridge_pass() was called. 0 or -errno, and it is closed.
 */
P2P_CHECK int tls_bridge_join(struct tls_bridge *bridge, int fd_take);
/* Before tls_bridge_pass(): goes to the plain socket before what came. Copied. */
void tls_bridge_put_before(struct tls_bridge *bridge, const void *bytes, size_t n);
void tls_bridge_pass(struct tls_bridge *bridge);
