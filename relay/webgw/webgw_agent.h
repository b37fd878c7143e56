/*
 * An agent of webgw within TLS: keeps a WebSocket to a public node, subscribes to hosts there, and carries their visitors
 * to local targets (docs/PROTOCOL-webgw.md).
 *
 *   connecting ──► subscribed ──► … ──┐        a visitor ──► a connection that is warm, or a new one ──► its host's target
 *       ▲                             │ ended, or cannot connect
 *       └──── 1 s, 2 s … 60 s ◄───────┘        back to 1 s by who was subscribed for a minute
 *
 * Of each host so many connections are kept warm: they are there before the visitors are; more while more come
 * (relay/webgw/warm_demand.h). Who was not asked for ten minutes keeps one. A visitor is carried once, whatever is told of it twice.
 * Visitors that are carried outlive the WebSocket. One that speaks TLS itself goes to a target of its own, if its host has one, and
 * is not wrapped in ours, if the node can do without as well: TLS ends behind its start, and both sockets are copied between.
 *
 * A target may be told who its visitors are, by a PROXY header, if the node tells the agent; else it has none of them.
 *
 * A host none of whose targets answers is unsubscribed until one does: another agent serves it. That is looked at when a visitor
 * broke unanswered.
 *
 * Loop only.
 */
#pragma once

#include "common/certificate.h"
#include "common/endpoint.h"
#include "common/error.h"
#include "relay/frontdoor/host_name.h"
#include "relay/webgw/agent_targets.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define WEBGW_AGENT_MAX_HOSTS 16
#define WEBGW_AGENT_MAX_WARM  16

struct webgw_agent;

struct webgw_agent_options {
	const char *host; /* of the public node: a name or a numeric address; copied */
	uint16_t port;
	struct pin pin;		 /* of its key */
	const char *secret_file; /* its first line is the secret in hex, read at each connect; copied. "": a member's */
	void *owner;
	/* From the loop, at each connect of a member: what certificate_free_secret() and free() take. */
	int (*identify)(void *owner, char **ret_key_pem, char **ret_certificate_pem, struct error *reterr);
	uint8_t n_warm; /* of each host, at least; 0: none */
	uint8_t n_hosts;
	struct host_pattern hosts[WEBGW_AGENT_MAX_HOSTS];
	struct webgw_agent_targets targets[WEBGW_AGENT_MAX_HOSTS];
};

struct webgw_agent_counters {
	uint64_t warm_used, dialled; /* visitors, by how they came */
	uint64_t too_many, told_twice;
	uint64_t half_closed; /* ended: one way was over, and in the other nothing moved for two minutes */
	uint64_t raw; /* visitors that speak TLS themselves, and are not wrapped in ours */
	uint32_t carried_now, warm_now, subscribed_now;
};

#define WEBGW_AGENT_WHY_LEN 159

struct webgw_agent_host_facts {
	struct host_pattern name;
	struct webgw_agent_targets targets;
	bool is_subscribed;
	bool is_down; /* its targets do not answer */
	char refusal[WEBGW_AGENT_WHY_LEN + 1]; /* what the server said last; "": it has not refused it, since it was there last */
	uint32_t warm, visitors_now;
};

/* For people: printable ASCII, whatever the server said. */
struct webgw_agent_facts {
	struct webgw_agent_counters counters;
	bool is_connected;
	char why[WEBGW_AGENT_WHY_LEN + 1]; /* it is not; "": not known yet */
	uint8_t n_hosts;
	struct webgw_agent_host_facts hosts[WEBGW_AGENT_MAX_HOSTS];
};

P2P_CHECK int webgw_agent_start(uv_loop_t *loop, const struct webgw_agent_options *options, struct webgw_agent **ret,
				struct error *reterr);
/* Resets what it carries, frees itself from the loop, then calls stopped (may be NULL). */
void webgw_agent_stop(struct webgw_agent *agent, void (*stopped)(void *owner), void *owner);
struct webgw_agent_counters webgw_agent_counters(const struct webgw_agent *agent);
void webgw_agent_facts(const struct webgw_agent *agent, struct webgw_agent_facts *ret);
