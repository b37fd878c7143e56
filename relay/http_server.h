/*
 * A few pages by plain HTTP, for a monitor beside us: one answer a connection, at most 16 at once, 5 s each.
 *
 *   accepted ──► head read ──► page made, written ──► closed
 *       └── 5 s, or more than HTTP_REQUEST_MAX_LEN ─────►
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"

#include <stdint.h>
#include <uv.h>

struct http_server;

struct http_page {
	int status;	  /* 200, 503 */
	const char *type; /* of the content */
	char *text;	  /* on the heap; the server frees it */
};

struct http_server_options {
	uv_loop_t *loop;
	struct endpoint listen; /* port 0: any */
	void *owner;
	/* False: there is no such page. */
	bool (*page)(void *owner, const char *path, struct http_page *ret);
};

/* 0, or -errno with the address in reterr. */
P2P_CHECK int http_server_start(const struct http_server_options *options, struct http_server **ret,
				struct error *reterr);
/* Drops its connections, frees itself from the loop, then calls cb (may be NULL). */
void http_server_stop(struct http_server *server, void (*cb)(void *owner), void *owner);
uint16_t http_server_port(const struct http_server *server);
