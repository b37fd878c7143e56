/*
 * The UAPI socket: WireGuard's configuration protocol on /var/run/wireguard/IFNAME.sock (0600).
 *
 * Takes connections, reads requests, checks them (uapi_wire.h) and keeps the whole ones until the
 * owner takes them, one at a time; the owner answers when it has done the work. Several requests
 * may follow on one connection; input is bounded. Loop thread only.
 */
#pragma once

#include "common/error.h"
#include "node/wireguard/uapi_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#define UAPI_FOLDER	     "/var/run/wireguard"
#define UAPI_MAX_CONNECTIONS 64
#define UAPI_MAX_REQUEST_LEN (16u << 20)

struct uapi_server;
struct uapi_connection;

struct uapi_ports {
	void *owner;
	/* There is a request to be taken. */
	void (*requested)(void *owner);
	/* Somebody has removed the socket's file: said once. */
	void (*socket_gone)(void *owner);
};

/* A checked request. Valid until it is answered. */
struct uapi_request {
	enum uapi_command command;
	struct uapi_item *items; /* of a set request */
	size_t n_items;
};

/* Creates folder and socket. -EADDRINUSE when another program answers there. */
P2P_CHECK int uapi_listen(uv_loop_t *loop, const char *ifname, const struct uapi_ports *ports,
			  struct uapi_server **ret, struct error *reterr);
/* Removes the socket, closes the connections; closed(arg) when all memory has been freed. */
void uapi_close(struct uapi_server *server, void (*closed)(void *arg), void *arg);

/* The next request, or NULL: none, or the last one taken has not been answered. */
const struct uapi_request *uapi_take(struct uapi_server *server);
/* Answers the request taken: the whole text, which is wiped and freed after it was sent. */
void uapi_answer(struct uapi_server *server, char *text_take, size_t len);
/* Answers with "errno=": 0 or -errno. */
void uapi_answer_result(struct uapi_server *server, int result);
