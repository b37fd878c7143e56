/* What the parts of the control service share. Not for others. */
#pragma once

#include "common/certificate.h"
#include "common/log.h"
#include "common/node_proof.h"
#include "common/rpc.h"
#include "common/websocket.h"
#include "control/control.h"
#include "control/directory.h"
#include "control/store.h"

#define CONTROL_MODULE      "control"
#define CONTROL_MAX_MESSAGE (64 << 10)
#define CONTROL_MAX_QUEUE   (32 << 20) /* one snapshot of the largest map */
#define CONTROL_MAX_ERRORS  16 /* answers with an error on one connection, until it is closed */
#define CONTROL_STRANGER_REQUESTS 16 /* of who is neither member nor admin; joining takes two */
#define CONTROL_REQUESTS_PER_S 20 /* of one member's connection, in the long run */
#define CONTROL_REQUESTS_BURST 200
#define CONTROL_WAKE_MAX	64  /* peers of one node.wake */
#define CONTROL_WAKES_EACH_MS	200 /* peers that a member has woken: 64 at once, 5 a second in the long run */
#define CONTROL_WOKEN_BURST	4   /* a member is woken so often at once … */
#define CONTROL_WOKEN_EACH_MS	10000 /* … and so often in the long run, however many wait for it */

struct connection {
	struct websocket *ws;
	struct connection *next, *previous;
	uint32_t node_id;     /* of the member it has shown to be; 0: none */
	bool showed_identity; /* has a certificate of this network, whose holder may be gone */
	bool is_admin;
	bool is_greeted; /* gets the map; it is its member's connection */
	uint64_t sent_sequence;
	uint64_t opened_ms;
	uint32_t n_errors, n_strange; /* requests: refused; of a stranger */
	struct token_bucket requests, wakes; /* a member's: of node.wake, and of all else */
	bool has_challenge;
	struct node_challenge challenge;
	struct secret_key challenge_secret;
	/* Set by a handler: done once its answer is on its way. */
	void (*after)(struct control *control, struct connection *connection);
};

struct control {
	uv_loop_t *loop;
	struct websocket_host *host;
	struct websocket_server *server;
	struct store *store;
	struct store_network network;
	struct directory directory;
	struct certificate_authority ca;
	char *ca_pem, *server_key_pem;
	struct pin pin;
	struct connection *connections;
	uint32_t n_connections;
	uv_timer_t flush, sweep;
	uint64_t server_certificate_due_s;
	uint64_t n_bad_messages, n_refused_joins, n_joins;
	struct log_limit refusals;
	int lock_fd;
	uint32_t n_open_handles;
	bool judges_again; /* what members publish: not all of it could be put */
	bool is_closing;
	void (*closed)(void *owner);
	void *owner;
};

/* 0 and *ret_result (an object, or NULL for an empty one), or non-zero and *reterr. */
typedef int (*method_handler)(struct control *control, struct connection *connection,
			      const struct json *params, struct json **ret_result,
			      struct rpc_error *reterr);

struct method {
	const char *name;
	enum method_for { FOR_ANYBODY, FOR_MEMBERS, FOR_ADMINS } who;
	method_handler handle;
};

extern const struct method node_methods[], admin_methods[]; /* end with a NULL name */

/* For handlers: an error answer, 1. */
int answer_error(struct rpc_error *reterr, enum rpc_code code, const struct error *why);
int answer_code(struct rpc_error *reterr, enum rpc_code code);

/* Changes, each durable before it returns and told to the nodes soon after. 0 or negative. What a member points to
 * goes over to the directory then, and stays the caller's else. */
P2P_CHECK int control_put_member(struct control *control, const struct member *member,
				 struct error *reterr);
/* The member's record changes with it: the map has whole names. Then control_judge_exposures() is due. */
P2P_CHECK int control_add_grant(struct control *control, const struct host_grant *grant, const struct member *member,
				struct error *reterr);
P2P_CHECK int control_remove_grant(struct control *control, const struct host_pattern *host, const struct member *member,
				   struct error *reterr);
/* The grants are others than before: what may be published by whom? Those for whom it is another answer are put. One that
 * cannot be put does not keep back the others: the first error, and the sweep tries again. */
P2P_CHECK int control_judge_exposures(struct control *control, struct error *reterr);
P2P_CHECK int control_remove_member(struct control *control, struct member *member, const char *why,
				    struct error *reterr);
/* The member's connection is now this one; an older one is closed. */
void control_greet(struct control *control, struct member *member, struct connection *connection);
/* What the connection has missed, or a snapshot when sent_sequence is 0. */
void control_send_map(struct control *control, struct connection *connection);
/* Told that somebody waits for it; if that was too often, later. */
void control_wake(struct control *control, struct member *member);
void control_send_notification(struct connection *connection, const char *method,
			       struct json *params_take);
/* The certificate of a member for the request in params ("request"). */
int control_sign(struct control *control, const struct json *params, const struct member *member,
		 char **ret_pem, struct rpc_error *reterr);
P2P_CHECK int control_make_link(const struct store_network *network, const struct pin *pin,
				enum join_link_kind kind, const char *secret,
				struct join_link *ret);
/* "" or "a,b": names of a-z 0-9 -. */
bool control_tags_are_valid(const char *tags);
int64_t control_now_s(void);
