/*
 * webgw's server, as the original speaks it (docs/PROTOCOL-webgw.md): agents subscribe to hosts over a WebSocket, and are
 * told of each visitor, for whom they dial back.
 *
 *   agent ── WebSocket ──► webgw ◄── wanted, over ── front door ◄── visitors
 *     │                      └──────── answer ──────────►│
 *     └───────────────── dials back ────────────────────►┘
 *
 * A connection has to subscribe within the time of its handshake; one that has no subscription any more has that time anew. An
 * agent that does not read what it is told is passed over while so much waits for it, and ended when nothing has gone out
 * to it for as long as a visitor waits.
 *
 * Of two kinds: within TLS, for all addresses, and without, for loopback, private and overlay ones, as who sees it may answer in
 * the agent's place. Agents of the first kind are told to dial back within TLS, too; and a member of the network, by its
 * certificate, needs no secret for hosts that are granted to it. Such hosts are there as long as they are; their
 * visitors are carried to their ends, unless the grant of the agent that went last is taken back, before or after. Those that
 * the process before has left have no such agent yet: they go on while the host is granted to any member.
 *
 * Loop only.
 */
#pragma once

#include "common/endpoint.h"
#include "common/error.h"
#include "common/websocket.h"
#include "relay/frontdoor/door_gate.h"
#include "relay/webgw/admin_wire.h"
#include "relay/webgw/dial_exchange.h"

struct webgw;

struct webgw_ports {
	void *owner;
	/* As front_door_answer(). */
	void (*answer)(void *owner, uint64_t ticket, int64_t subscription, struct agent_tally *tally);
	/* As front_door_dial_back_port(); or where agents dial back within TLS. */
	uint16_t (*dial_back_port)(void *owner, bool is_tls);
	/* Where those dial back who came by webgw_take(). NULL: nobody does. */
	uint16_t (*shared_port)(void *owner);
	/* May this member serve that host? NULL: none may any. */
	bool (*is_granted)(void *owner, const struct identity *who, const struct host_pattern *host);
	/* May any member serve it? NULL: none may. */
	bool (*is_any_granted)(void *owner, const struct host_pattern *host);
	/* A host of members came, or went with the last of its agents. */
	void (*changed)(void *owner);
	/* As data_links_prepare() and data_links_hand(), for agents within TLS. NULL: none of them has warm connections. */
	uint32_t (*prepare)(void *owner, int64_t subscription, uint32_t n, uint8_t ret[][WEBGW_EPHEMERAL_LEN]);
	bool (*hand)(void *owner, int64_t subscription, const struct dial_wanted *wanted);
};

struct webgw_options {
	struct websocket_host *host; /* borrowed; with its end the server has its own */
	struct endpoint listen; /* without TLS */
	struct webgw_ports ports;
};

struct webgw_counters {
	uint64_t told;	       /* visitors of whom an agent was told */
	uint64_t nobody;       /* visitors: no agent had subscribed, or all have too many waiting */
	uint64_t not_read;     /* visitors: their agents read too slowly to be told */
	uint64_t ended;	       /* agents that did not read at all */
	uint64_t wrong;	       /* unknown hosts and wrong secrets */
	uint64_t unproven;     /* connections that did not subscribe in time */
	uint64_t made_room;    /* the same, when others came */
	uint64_t refused;      /* connections: too many, or too fast */
};

/* 0, or -errno with address and remedy in reterr. */
P2P_CHECK int webgw_new(const struct webgw_options *options, struct webgw **ret, struct error *reterr);
/*
 * Agents within TLS as well, until that host is closed: then webgw_close_tls(), and it may be opened again. tls: a server's,
 * OPTIONAL. 0, or -errno with address and remedy in reterr.
 */
P2P_CHECK int webgw_open_tls(struct webgw *webgw, struct websocket_host *host, const struct endpoint *listen,
			     const struct tls_options *tls, struct error *reterr);
void webgw_close_tls(struct webgw *webgw);
/* Who came, for the WebSocket within TLS, to a port that is not webgw's alone: as websocket_server_take(). */
void webgw_take(struct webgw *webgw, int fd_take, const struct endpoint *remote);
/* As websocket_server_set_certificate(). */
P2P_CHECK int webgw_set_certificate(struct webgw *webgw, const char *certificate_pem, const char *key_pem,
				    struct error *reterr);
/* Who has which host has changed: members that may no longer serve one are let go, and hosts that no member has. */
void webgw_recheck(struct webgw *webgw);
/*
 * A host that is granted to a member, before its agents are back: the gate, borrowed, through which its visitors of before go
 * on; until no member may serve it any more. NULL: no member may, another has the host, or there are too many.
 */
struct door_gate *webgw_expect_host(struct webgw *webgw, const struct host_pattern *host);
/* After the WebSocket host is closed, and the front door. Accepts NULL. */
void webgw_free(struct webgw *webgw);
/* As subscriptions_add_host(). */
P2P_CHECK int webgw_add_host(struct webgw *webgw, const struct host_pattern *host, const uint8_t hash[WEBGW_HASH_LEN]);
/* As subscriptions_set_balance(). */
bool webgw_set_balance(struct webgw *webgw, const struct host_pattern *host, enum webgw_balance balance);
/* With its agents' subscriptions and its visitors, these when the routes are replaced. False: it was not there. */
bool webgw_remove_host(struct webgw *webgw, const struct host_pattern *host);
/* Hosts one after the other: i from 0 on. The gate all its visitors go through, borrowed; NULL: there are no more. */
struct door_gate *webgw_host_at(const struct webgw *webgw, uint32_t i, struct host_pattern *ret);
/* The same, for who asks about them. False: there are no more, or no such. */
bool webgw_host_facts(const struct webgw *webgw, uint32_t i, struct webgw_admin_host *ret);
bool webgw_find_host(const struct webgw *webgw, const struct host_pattern *host, struct webgw_admin_host *ret);
/* An array of who has subscribed, by hosts. */
struct json *webgw_list_clients(const struct webgw *webgw);
struct webgw_counters webgw_counters(const struct webgw *webgw);

/* A visitor waits: an agent is chosen and told, and answer() called, from inside. */
void webgw_wanted(struct webgw *webgw, const struct dial_wanted *wanted);
/*
 * Its agent was handed that visitor, and has not taken it: now it is told, as if it had nothing warm; if it has gone, or does not
 * read, another one of that host, and the visitor is counted of the first all the same. False: nobody could be told.
 */
P2P_CHECK bool webgw_not_taken(struct webgw *webgw, int64_t subscription, const struct dial_wanted *wanted);
/* Is there still this subscription? */
bool webgw_is_there(struct webgw *webgw, int64_t subscription);
/* Is it of an agent that has asked to be told who its visitors are? */
bool webgw_tells_visitors(struct webgw *webgw, int64_t subscription);
void webgw_over(struct webgw *webgw, const struct dial_over *over);
