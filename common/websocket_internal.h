/*
 * The libwebsockets adapter, within: what its files share. Nobody else includes this.
 *
 * The library does WebSocket framing and drives OpenSSL; all else is ours: we listen and accept (so
 * that limits are counted, logged and refused), resolve names (its getaddrinfo would block the
 * loop), decide whom to trust (common/tls), bound what is received and sent.
 *
 *   client   RESOLVING ──► CONNECTING ──► OPEN ──► CLOSING ──► ENDED
 *   server                 CONNECTING ──► OPEN ──► CLOSING ──► ENDED       any state ──► ENDED
 *
 *   websocket_host.c     the library's context, and how all of it closes
 *   websocket_number.c   a fault of the library at its end
 *   websocket_server.c   who comes, and finds a place
 *   websocket_client.c   where to connect, and whom to trust
 *   websocket.c          a connection, from either
 */
#pragma once

#include "common/source_limit.h"
#include "common/log.h"
#include "common/websocket.h"
#include "common/websocket_number.h"

#include <libwebsockets.h>
#include <openssl/ssl.h>
#include <sodium.h>

#define MODULE        "websocket"
#define PROTOCOL      "p2pnode"
#define PATH          "/rpc"
#define TLS_RECORD    17000 /* larger than one TLS record with its overhead */
#define HANDSHAKE_S   10
#define MAX_ADDRESSES 8
#define SOURCES       4096

enum state { RESOLVING, CONNECTING, OPEN, CLOSING, ENDED };

struct queued {
	struct queued *next;
	size_t len;
	unsigned char bytes[]; /* LWS_PRE, then the text */
};

/* A name look-up. It cannot be broken off, only forgotten: nobody waits for its end. */
struct resolution {
	uv_getaddrinfo_t request;
	struct websocket *ws; /* NULL: it ended */
};

struct websocket {
	struct websocket_host *host;
	struct websocket_server *server; /* NULL: a client */
	struct websocket *next, *previous;
	struct websocket_handler handler;
	enum state state;
	struct lws *wsi; /* NULL before and after */
	uv_timer_t timer;
	void *data;
	char why[256];
	bool is_unproven;
	bool is_making_room; /* its place is another's already */
	bool ending;       /* libwebsockets has been told to end it */
	bool deferred_end; /* the timer's next shot is the end */
	bool tell;         /* and tells the owner */

	char *rx;
	size_t rx_len, rx_size, max_message;
	struct queued *first, **last;
	size_t queued, max_queue;
	uint64_t moved_ms; /* when something went out last, or had to wait after nothing had */

	bool was_taken;
	bool has_identity, has_pin;
	struct identity identity;
	struct pin peer_pin;
	struct endpoint remote;

	/* client only */
	char address_name[JOIN_LINK_MAX_HOST + 1];
	uint16_t port;
	const char *alpn;
	bool tells_name;
	enum tls_trust trust;
	struct pin pin;
	X509 *ca, *certificate;
	EVP_PKEY *key;
	struct resolution *resolution; /* NULL: none under way */
	bool in_connect, connect_failed, saw_server, refused_server;
	struct endpoint addresses[MAX_ADDRESSES];
	uint32_t n_addresses, next_address;
};

struct websocket_server {
	struct websocket_host *host;
	struct websocket_server *next;
	struct lws_vhost *vhost;
	SSL_CTX *tls;                                 /* libwebsockets' */
	const struct websocket_server_options *setup; /* while the vhost is made */
	struct error setup_error;
	struct websocket_handler handler;
	size_t max_connections, max_per_address, max_message, max_queue;
	int send_buffer;
	uint32_t max_unproven, max_unproven_source, n_unproven, n_making_room;
	uint64_t handshake_ms;
	struct source_limit source_limit; /* a handshake costs us a signature */
	uint32_t n_of[SOURCES];		  /* connections, by source_of(); several sources may share a place */
	uint8_t seed[crypto_shorthash_KEYBYTES];
	struct websocket_server_counters counters;
	struct log_limit refusals;
	bool is_plain, is_any_path;
	int fd;
	uint16_t port;
	char name[16];
	uv_poll_t accept;
	uv_timer_t pause;
};

struct websocket_host {
	uv_loop_t *loop;
	struct lws_context *context;
	struct websocket_number number; /* of its eventfd */
	struct lws_vhost *client_vhost;
	SSL_CTX *client_tls;
	struct websocket *websockets;
	struct websocket_server *servers;
	uint32_t n_handles; /* of ours, not closed yet */
	bool closing;
	bool destroying;
	uint32_t turns;
	uv_idle_t idle;       /* while closing */
	uv_prepare_t prepare; /* these two: see on_prepare() */
	uv_timer_t kick;
	uint32_t n_own_handles;
	void (*closed)(void *owner);
	void *owner;
};

extern const lws_retry_bo_t websocket_keep_alive;
extern const struct lws_protocols websocket_protocols[];

/* A connection's life. */
struct websocket *websocket_new(struct websocket_host *host, const struct websocket_handler *handler);
/* The lws connection is gone, or never was: why may be NULL. */
void websocket_finish(struct websocket *ws, const char *why);
/* Ends the lws connection from the loop; websocket_finish() follows. */
void websocket_end_now(struct websocket *ws, const char *why);
void websocket_free_when_quiet(struct websocket *ws);
void websocket_forget_unproven(struct websocket *ws);
void websocket_on_timeout(uv_timer_t *timer);

/* The client. */
P2P_CHECK int websocket_make_client_tls(struct websocket_host *host, struct error *reterr);
void websocket_on_connect_error(struct websocket *ws, const char *why);

/* The server. */
bool websocket_is_served(const struct websocket *ws);
/* ws ends, which was its. */
void websocket_server_forget(const struct websocket *ws);
/* The library has made the context of a server's TLS. What its callback is to return. */
int websocket_server_on_tls(struct lws *wsi, SSL_CTX *tls);

/* The host: goes on with closing, when there is nobody left to tell. */
void websocket_host_advance_close(struct websocket_host *host);
