/* What a public node tells of its relay, and how it is drained. */
#include "node/engine_internal.h"

#include "common/clock.h"
#include "common/rpc.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* Other relays get the clients one after another; few go at once, since pairs are apart until both have gone. */
#define DRAIN_CLIENT_MS	    2
#define DRAIN_MAX_SPREAD_MS 10000

static uint64_t cpu_ms(void)
{
	struct rusage usage;

	if (getrusage(RUSAGE_SELF, &usage) != 0)
		return 0;
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

static void fill_causes(const struct public_node_stats *stats, struct relay_status *status)
{
	const struct relay_server_counters *relay = &stats->relay;
	const struct udp_clients_counters *udp = &stats->udp;
	const struct relay_outbox_counters *out = &stats->udp_out;

	relay_status_add_count(&status->drops, "destination unknown", relay->dropped_unknown + udp->dropped_unknown);
	relay_status_add_count(&status->drops, "queue full", relay->dropped_queue + out->full[RELAY_OUTBOX_DATA] + stats->dropped_bridge + udp->dropped_unfair);
	relay_status_add_count(&status->drops, "rate limit", relay->dropped_rate + udp->dropped_rate);
	relay_status_add_count(&status->drops, "frame malformed", relay->malformed + udp->malformed);
	relay_status_add_count(&status->drops, "not bound", udp->dropped_stranger);
	relay_status_add_count(&status->drops, "strangers limited", udp->dropped_limited);
	relay_status_add_count(&status->drops, "too many receivers",
			       relay->dropped_unanswered + udp->dropped_contacts);
	relay_status_add_count(&status->drops, "sending failed", out->failed[RELAY_OUTBOX_DATA]);
	relay_status_add_count(&status->drops, "too many probes", out->full[RELAY_OUTBOX_PROBE]);

	relay_status_add_count(&status->refused, "no valid TLS", relay->refused_tls);
	relay_status_add_count(&status->refused, "handshake too slow", relay->refused_timeout);
	relay_status_add_count(&status->refused, "too many handshakes", relay->refused_handshakes);
	relay_status_add_count(&status->refused, "too many of one source", relay->refused_rate);
	relay_status_add_count(&status->refused, "relay full", relay->refused_full + udp->refused_full);
	relay_status_add_count(&status->refused, "not a member",
			       relay->refused_not_member + udp->refused_not_member);
	relay_status_add_count(&status->refused, "draining",
			       relay->refused_draining + udp->refused_draining);
	relay_status_add_count(&status->refused, "no file descriptor", relay->refused_descriptors);
	relay_status_add_count(&status->refused, "no valid cookie", udp->refused_cookie);
	relay_status_add_count(&status->refused, "no valid proof", udp->refused_proof);
	relay_status_add_count(&status->refused, "an older bind", udp->refused_old);
	relay_status_add_count(&status->refused, "too many binds", udp->refused_busy);

	relay_status_add_count(&status->closed, "replaced", relay->closed_replaced);
	relay_status_add_count(&status->closed, "removed", relay->closed_removed + udp->closed_removed);
	relay_status_add_count(&status->closed, "silent", relay->closed_silent + udp->closed_silent);
	relay_status_add_count(&status->closed, "protocol broken", relay->closed_protocol);
	relay_status_add_count(&status->closed, "certificate expired", relay->closed_expired);
	relay_status_add_count(&status->closed, "drained", relay->closed_drained + udp->closed_drained);
}

static void fill_stun(const struct stun_server_counters *stun, struct relay_status_counts *counts)
{
	relay_status_add_count(counts, "received", stun->received);
	relay_status_add_count(counts, "answered", stun->answered);
	relay_status_add_count(counts, "garbage", stun->garbage);
	relay_status_add_count(counts, "not a request", stun->not_a_request);
	relay_status_add_count(counts, "question too small", stun->too_small);
	relay_status_add_count(counts, "rate limited", stun->rate_limited);
	relay_status_add_count(counts, "unknown attribute", stun->unknown_attribute);
	relay_status_add_count(counts, "sending failed", stun->send_failed);
}

struct filling {
	const struct p2p_engine *engine;
	struct relay_status *status;
	uint64_t now_ms;
};

static void add_client(void *owner, const struct relay_server_client *client)
{
	const struct filling *filling = owner;
	struct relay_status_client *entry = relay_status_add_client(filling->status);

	*entry = (struct relay_status_client){ .node_key = client->node_key,
					       .transport = "tls",
					       .remote = client->remote,
					       .connected_ms = filling->now_ms - client->connected_ms,
					       .packets_in = client->packets_in,
					       .bytes_in = client->bytes_in,
					       .packets_out = client->packets_out,
					       .bytes_out = client->bytes_out,
					       .dropped = client->dropped_queue };
	snprintf(entry->name, sizeof(entry->name), "%s", client->name);
}

/* Over UDP a client shows its key alone; the map has its name. */
static void add_udp_client(const struct filling *filling, const struct udp_clients_client *client, uint64_t now_ns)
{
	struct relay_status_client *entry = relay_status_add_client(filling->status);
	const struct p2p_engine *engine = filling->engine;
	const struct map_peer *peer =
		engine->map ? map_find_peer_by_key(map_ref_get(engine->map), &client->node_key) : NULL;

	*entry = (struct relay_status_client){ .node_key = client->node_key,
					       .transport = "udp",
					       .remote = client->way.remote,
					       .connected_ms = (now_ns - client->bound_ns) / 1000000,
					       .packets_in = client->packets_in,
					       .bytes_in = client->bytes_in,
					       .packets_out = client->packets_out,
					       .bytes_out = client->bytes_out };
	if (public_key_equal(&client->node_key, &engine->node_key_public))
		snprintf(entry->name, sizeof(entry->name), "%s", engine->membership.member.name);
	else if (peer)
		snprintf(entry->name, sizeof(entry->name), "%s", peer->name);
}

static void add_udp_clients(const struct filling *filling)
{
	const struct udp_clients_busiest *busiest = public_node_busiest_udp(filling->engine->public_node);
	const uint64_t now_ns = clock_now_ns();

	for (uint32_t i = 0; busiest && i < busiest->n; i++)
		add_udp_client(filling, &busiest->clients[i], now_ns);
}

static int serves_relay(const struct p2p_engine *engine)
{
	if (!engine->is_public)
		return RPC_NOT_FOUND;
	return engine->public_node ? 0 : RPC_UNAVAILABLE;
}

int engine_fill_relay_status(const struct p2p_engine *engine, bool with_clients, struct relay_status *status)
{
	struct filling filling = { engine, status, uv_now(engine->loop) };

	int r = serves_relay(engine);

	if (r != 0)
		return r;
	const struct public_node_stats stats = public_node_stats(engine->public_node);
	status->tls_port = stats.tls_port;
	status->stun_port = stats.stun_port;
	status->uptime_ms = filling.now_ms - engine->started_ms;
	status->cpu_ms = cpu_ms();
	status->handshakes = stats.relay.handshakes;
	status->totals = (struct relay_status_totals){ .accepted = stats.relay.accepted,
						       .admitted = stats.relay.admitted,
						       .packets_in = stats.relay.packets + stats.udp.packets,
						       .bytes_in = stats.relay.bytes + stats.udp.bytes,
						       .packets_out = stats.relay.packets_out +
								      stats.udp_out.sent[RELAY_OUTBOX_DATA],
						       .bytes_out = stats.relay.bytes_out + stats.udp_out.data_bytes };
	status->tls_clients = stats.relay.clients;
	status->udp_clients = stats.udp.clients;
	status->queue_longest_ms = stats.relay.longest_ms;
	if (stats.relay.packets_out > 0)
		status->queue_mean_us = stats.relay.waited_ms * 1000 / stats.relay.packets_out;
	status->draining = engine->relay_drains;
	if (engine->relay_drains && engine->relay_drained_ms > filling.now_ms)
		status->drain_left_ms = engine->relay_drained_ms - filling.now_ms;
	fill_causes(&stats, status);
	fill_stun(&stats.stun, &status->stun);
	if (!with_clients)
		return 0;
	relay_server_each_client(public_node_relay(engine->public_node), add_client, &filling);
	add_udp_clients(&filling);
	return 0;
}

static uint32_t drain_spread_ms(const struct p2p_engine *engine, uint32_t deadline_ms)
{
	const struct public_node_stats stats = public_node_stats(engine->public_node);
	const uint64_t ms = ((uint64_t)stats.relay.clients + stats.udp.clients) * DRAIN_CLIENT_MS;
	const uint32_t most = deadline_ms / 2 < DRAIN_MAX_SPREAD_MS ? deadline_ms / 2 : DRAIN_MAX_SPREAD_MS;

	return ms < most ? (uint32_t)ms : most;
}

int engine_drain_relay(struct p2p_engine *engine, uint32_t deadline_s)
{
	uint32_t deadline_ms = deadline_s * 1000;
	int r = serves_relay(engine);

	if (r != 0)
		return r;
	engine->relay_drains = true;
	engine->relay_drained_ms = uv_now(engine->loop) + deadline_ms;
	log_info("relay", "draining: clients are sent away, and none taken");
	public_node_drain(engine->public_node, drain_spread_ms(engine, deadline_ms));
	return 0;
}

int engine_undrain_relay(struct p2p_engine *engine)
{
	int r = serves_relay(engine);

	if (r != 0)
		return r;
	if (engine->relay_drains)
		log_info("relay", "draining has ended: clients are taken again");
	engine->relay_drains = false;
	public_node_undrain(engine->public_node);
	return 0;
}
