/*
 * A few pages by plain HTTP, for a monitor beside us, or requests on a Unix socket for who runs the node: one answer a
 * connection, at most 16 at once, 5 s each.
 *
 *   accepted ──► head read ──► body read ──► page made, written ──► closed
 *       └── 5 s, or more than HTTP_REQUEST_MAX_LEN and HTTP_SERVER_MAX_BODY ─►
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"

#include "common/http_request.h"

#include <stdint.h>
#include <uv.h>

#define HTTP_SERVER_MAX_BODY 1024

struct http_server;

struct http_page {
	int status;	   /* 200, 503 */
	const char *type;  /* of the content */
	char *text;	   /* on the heap; the server frees it; of a 204 it is not sent */
	const char *allow; /* of a 405: the methods that there are; NULL: those of pages */
};

struct http_server_options {
	uv_loop_t *loop;
	struct endpoint listen; /* port 0: any */
	const char *path;	/* a Unix socket there instead, for its owner alone; NULL: none */
	const char *choose;	/* what to do if it cannot be there: "choose another path" */
	void *owner;
	/* False: there is no such page. */
	bool (*page)(void *owner, const char *path, struct http_page *ret);
	/* Instead of page: of all methods, with a body; what is no HTTP, or too long, is answered before. */
	void (*request)(void *owner, const struct http_request *request, const char *body, size_t len,
			struct http_page *ret);
	/* The content of our own answers to those, on the heap; NULL: text */
	char *(*failure)(const char *why);
};

/* 0, or -errno with the address in reterr. */
P2P_CHECK int http_server_start(const struct http_server_options *options, struct http_server **ret,
				struct error *reterr);
/* Drops its connections, removes its socket, frees itself from the loop, then calls cb (may be NULL). */
void http_server_stop(struct http_server *server, void (*cb)(void *owner), void *owner);
uint16_t http_server_port(const struct http_server *server);
