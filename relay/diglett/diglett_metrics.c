#include "relay/diglett/diglett_metrics.h"

#include "common/macros.h"

#include <inttypes.h>

#define PREFIX "p2pnode_diglett_"

struct figure {
	const char *label;
	uint64_t n;
};

static void put_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

static void put_one(FILE *out, const char *name, const char *type, const char *help, uint64_t n)
{
	put_head(out, name, type, help);
	fprintf(out, PREFIX "%s %" PRIu64 "\n", name, n);
}

static void put_by(FILE *out, const char *name, const char *help, const char *label, const struct figure *figures,
		   size_t n_figures)
{
	put_head(out, name, "counter", help);
	for (size_t i = 0; i < n_figures; i++)
		fprintf(out, PREFIX "%s{%s=\"%s\"} %" PRIu64 "\n", name, label, figures[i].label, figures[i].n);
}

static void put_agents(FILE *out, const struct diglett_server_counters *server)
{
	const struct figure refusals[] = {
		{ "token_not_valid", server->refused[DIGLETT_REFUSED_TOKEN] },
		{ "certificate_not_valid", server->refused[DIGLETT_REFUSED_NODE] },
		{ "name_held", server->refused[DIGLETT_REFUSED_NAME_HELD] },
		{ "names_not_possible", server->refused[DIGLETT_REFUSED_NAMES] },
		{ "too_many_agents", server->refused[DIGLETT_REFUSED_TOO_MANY] },
		{ "gateway_busy", server->refused[DIGLETT_REFUSED_GATEWAY] },
		{ "no_port", server->refused[DIGLETT_REFUSED_NO_PORT] },
		{ "handshake_failed", server->failed },
		{ "crowded_out", server->crowded_out },
		{ "too_often", server->too_often },
	};
	const struct figure ends[] = {
		{ "replaced", server->replaced },
		{ "revoked", server->revoked },
		{ "gone", server->gone },
		{ "ended", server->ended },
	};

	put_one(out, "agents", "gauge", "Agents that are let in now.", server->agents_now);
	put_one(out, "agents_total", "counter", "Agents that were let in.", server->accepted);
	put_one(out, "agents_v1_total", "counter", "Of these, of version 1 (allow_v1).", server->of_v1);
	put_by(out, "agents_refused_total", "Connections that did not become agents, by cause.", "cause", refusals,
	       ARRAY_LEN(refusals));
	put_by(out, "agents_ended_total", "Agents that ended, by cause.", "cause", ends, ARRAY_LEN(ends));
}

static void put_script(FILE *out, const struct gateway_counters *gateway)
{
	put_one(out, "script_runs_total", "counter", "Runs of the gateway's script.", gateway->runs);
	put_one(out, "script_failures_total", "counter", "Runs that failed, or were killed.", gateway->failures);
	put_one(out, "script_killed_total", "counter", "Runs that took too long.", gateway->killed);
	put_one(out, "script_waiting", "gauge", "Calls that run or wait.", gateway->waiting);
}

/* Of both sides, each under its own label: a node may be both. */
static void put_streams_figure(FILE *out, const struct diglett_metrics *metrics, const char *name, const char *type,
			       const char *help, uint64_t server, uint64_t agent)
{
	put_head(out, name, type, help);
	if (metrics->is_server)
		fprintf(out, PREFIX "%s{side=\"server\"} %" PRIu64 "\n", name, server);
	if (metrics->is_agent)
		fprintf(out, PREFIX "%s{side=\"agent\"} %" PRIu64 "\n", name, agent);
}

static void put_streams(FILE *out, const struct diglett_metrics *metrics)
{
	const struct tunnel_counters *server = &metrics->server.streams, *agent = &metrics->agent.streams;

	put_streams_figure(out, metrics, "streams", "gauge", "Streams now.", server->visitors_now, agent->visitors_now);
	put_streams_figure(out, metrics, "streams_total", "counter", "Streams that were opened.", server->mux.opened,
			   agent->mux.opened);
	put_streams_figure(out, metrics, "streams_refused_total", "counter", "Streams without a place or a target.",
			   server->mux.refused, agent->mux.refused);
	put_streams_figure(out, metrics, "streams_reset_total", "counter", "Streams that ended by a reset, of either side.",
			   server->mux.resets_sent + server->mux.resets_received,
			   agent->mux.resets_sent + agent->mux.resets_received);
	put_streams_figure(out, metrics, "streams_stalled_total", "counter", "Streams whose end took nothing.",
			   server->mux.stalled, agent->mux.stalled);
	put_streams_figure(out, metrics, "streams_idle_total", "counter", "Streams on which nothing moved for long.",
			   server->mux.idle, agent->mux.idle);
	put_streams_figure(out, metrics, "bytes_in_total", "counter", "Bytes of streams from the other side.",
			   server->bytes_in, agent->bytes_in);
	put_streams_figure(out, metrics, "bytes_out_total", "counter", "Bytes of streams to the other side.",
			   server->bytes_out, agent->bytes_out);
}

void diglett_metrics_put(FILE *out, const struct diglett_metrics *metrics)
{
	if (metrics->is_server) {
		put_agents(out, &metrics->server);
		put_script(out, &metrics->server.gateway);
	}
	if (metrics->is_agent) {
		put_one(out, "agent_connected", "gauge", "1 while the server lets this node's agent in.",
			metrics->agent.is_let_in);
		put_one(out, "agent_connections_total", "counter", "Times that the server let it in.", metrics->agent.let_in);
	}
	if (metrics->is_server || metrics->is_agent)
		put_streams(out, metrics);
}
