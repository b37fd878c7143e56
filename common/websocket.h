/*
 * WebSocket over TLS 1.3 (a server may do without) on the libuv loop: these files alone (websocket_*.c) know libwebsockets.
 *
 * One websocket_host a loop. It owns a server, or clients, or both. Whole text messages are
 * delivered, bounded by max_message; what is sent is queued, bounded by max_queue. Keep-alive pings
 * go out every 60 s and a silent connection ends after 90 s. Path "/rpc", subprotocol "p2pnode".
 *
 * Loop only. Callbacks are made from the loop, never from inside websocket_connect(),
 * websocket_send() or websocket_close(). A websocket lives until its closed callback has returned.
 */
#pragma once

#include "common/certificate.h"
#include "common/endpoint.h"
#include "common/error.h"
#include "common/tls.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct websocket_host;
struct websocket_server;
struct websocket;

struct websocket_handler {
	void *owner; /* of a server, or of a client connection */
	void (*opened)(void *owner, struct websocket *ws);
	/* text is NUL-terminated, valid UTF-8, borrowed. */
	void (*message)(void *owner, struct websocket *ws, const char *text, size_t len);
	/* The last word of each connection, also of one that never opened. why is for people. */
	void (*closed)(void *owner, struct websocket *ws, const char *why);
};

P2P_CHECK int websocket_host_new(uv_loop_t *loop, struct websocket_host **ret,
				 struct error *reterr);
/* Closes everything it owns (closed is called for each connection), frees itself, then calls cb. */
void websocket_host_close(struct websocket_host *host, void (*cb)(void *owner), void *owner);

uv_loop_t *websocket_host_loop(const struct websocket_host *host);

struct websocket_server_options {
	struct endpoint listen; /* port 0: any; see websocket_server_port() */
	/* Without TLS, at any path, for clients that know nothing else: tls and handshakes of TLS are not looked at. */
	bool is_plain;
	bool is_any_path; /* the same of paths and subprotocols, with TLS */
	struct tls_options tls; /* is_server; trust OPTIONAL or CA */
	size_t max_connections; /* 0: as many as RLIMIT_NOFILE allows, less a reserve */
	size_t max_per_address; /* or IPv6 /64; 0: 1024 */
	uint64_t handshake_ms;  /* for TLS and upgrade together; 0: 10 s */
	/* Connections a second of one IPv4 /24 or IPv6 /56, and ten times as many at once; 0: 100. */
	uint32_t max_rate_source;
	size_t max_message;     /* bytes of one message received */
	size_t max_queue;       /* bytes that may wait to be sent on one connection */
	int send_buffer;        /* bytes of it that the kernel takes besides; 0: as many as it likes */
	/*
	 * Who connects has handshake_ms in all until websocket_prove() says that it is somebody. So many may be unproven,
	 * in all and of one IPv4 address or IPv6 /56; then the one of them that has been so for longest makes room.
	 * 0: nobody has to prove anything.
	 */
	uint32_t max_unproven, max_unproven_source;
	struct websocket_handler handler;
};

/* -EADDRINUSE, -EACCES …: reterr names the address. */
P2P_CHECK int websocket_server_new(struct websocket_host *host,
				   const struct websocket_server_options *options,
				   struct websocket_server **ret, struct error *reterr);
uint16_t websocket_server_port(const struct websocket_server *server);
/*
 * Who came to another port: as if it had come here, with all limits. fd: a stream socket, non-blocking, of which nothing was read; taken
 * over. remote: who is at its other end, if that is somebody who copies.
 */
void websocket_server_take(struct websocket_server *server, int fd_take, const struct endpoint *remote);
P2P_CHECK int websocket_server_set_certificate(struct websocket_server *server,
					       const char *certificate_pem, const char *key_pem,
					       struct error *reterr);
struct websocket_server_counters {
	uint64_t accepted, refused_limit, refused_address, refused_rate;
	uint64_t broken_handshakes; /* garbage, no TLS 1.3, not to be trusted, given up; not those that made room */
	uint64_t bad_messages;      /* binary or too large */
	uint64_t unproven;          /* open, but had not proven itself in time */
	uint64_t made_room;         /* had not proven themselves, open or not, when others came */
	uint32_t open;
};
struct websocket_server_counters websocket_server_counters(const struct websocket_server *server);

struct websocket_client_options {
	const char *host; /* name or address */
	uint16_t port;
	struct tls_options tls; /* trust CA or PIN; alpn is not looked at */
	/*
	 * Static, "http/1.1" among them, separated by commas; NULL: that alone. And then host is told as server name, if it is a name:
	 * for servers that are not alone at their port.
	 */
	const char *alpn;
	size_t max_message, max_queue;
	uint64_t timeout_ms; /* for name, TCP, TLS and upgrade together; 0: 10 s */
	struct websocket_handler handler;
};

/*
 * Never fails at once: what goes wrong is told by closed(). NULL only when the options make no
 * sense.
 */
struct websocket *websocket_connect(struct websocket_host *host,
				    const struct websocket_client_options *options,
				    struct error *reterr);

/* Copies. 0; -ENOBUFS when the queue is full (nothing queued); -ENOTCONN when it is not open. */
P2P_CHECK int websocket_send(struct websocket *ws, const char *text, size_t len);
size_t websocket_queued(const struct websocket *ws); /* bytes */
/* For how long something has waited to be sent, and nothing went out. */
uint64_t websocket_stalled_ms(const struct websocket *ws);
/* Of a server's connection: it may stay. */
void websocket_prove(struct websocket *ws);
/* It is nobody any more: has handshake_ms again, and makes room before those that connected later. */
void websocket_unprove(struct websocket *ws);
/* Ends it after what is queued has gone out (at most 5 s); closed follows. why goes to our own log.
 */
void websocket_close(struct websocket *ws, const char *why);
/* Ends it at once, for when the network below is known to be gone; closed follows. */
void websocket_abort(struct websocket *ws, const char *why);

/* A word of the owner's own for each connection; NULL at first. */
void websocket_set_data(struct websocket *ws, void *data);
void *websocket_data(const struct websocket *ws);
/* Who the other side is by its certificate; NULL when it showed none. */
const struct identity *websocket_identity(const struct websocket *ws);
/* The pin of the other side's key, as shown in the handshake. False when it showed none. */
bool websocket_peer_pin(const struct websocket *ws, struct pin *ret);
struct endpoint websocket_remote(const struct websocket *ws);
/* Did it come by websocket_server_take()? */
bool websocket_was_taken(const struct websocket *ws);
