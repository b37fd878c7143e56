#include "relay/relay_metrics.h"

#include "common/macros.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PREFIX "p2pnode_"

/* A count with its labels, such as transport="tls",cause="queue_full". */
struct sample {
	const char *transport, *cause;
	uint64_t n;
};

static void put_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

static void put_samples(FILE *out, const char *name, const char *type, const char *help,
			const struct sample *samples, size_t n)
{
	put_head(out, name, type, help);
	for (size_t i = 0; i < n; i++) {
		const struct sample *sample = &samples[i];
		fprintf(out, PREFIX "%s{transport=\"%s\"", name, sample->transport);
		if (sample->cause)
			fprintf(out, ",cause=\"%s\"", sample->cause);
		fprintf(out, "} %" PRIu64 "\n", sample->n);
	}
}

static void put_pair(FILE *out, const char *name, const char *type, const char *help, uint64_t tls, uint64_t udp)
{
	const struct sample samples[] = { { "tls", NULL, tls }, { "udp", NULL, udp } };

	put_samples(out, name, type, help, samples, ARRAY_LEN(samples));
}

static void put_gauge(FILE *out, const char *name, const char *help, uint64_t value)
{
	put_head(out, name, "gauge", help);
	fprintf(out, PREFIX "%s %" PRIu64 "\n", name, value);
}

static void put_traffic(FILE *out, const struct public_node_stats *stats)
{
	const struct relay_server_counters *tls = &stats->relay;
	const struct udp_clients_counters *udp = &stats->udp;

	put_pair(out, "relay_clients", "gauge", "Clients now.", tls->clients, udp->clients);
	put_pair(out, "relay_clients_admitted_total", "counter", "Connections or binds that became clients.",
		 tls->admitted, udp->bound);
	put_pair(out, "relay_packets_in_total", "counter", "Packets taken in to be passed on.", tls->packets,
		 udp->packets);
	put_pair(out, "relay_bytes_in_total", "counter", "Bytes of these packets.", tls->bytes, udp->bytes);
	put_pair(out, "relay_packets_out_total", "counter", "Packets handed to their receivers' connections.",
		 tls->packets_out, stats->udp_out.sent[RELAY_OUTBOX_DATA] + stats->udp_out.sent[RELAY_OUTBOX_PROBE]);
	put_pair(out, "relay_bytes_out_total", "counter", "Bytes of these packets, with their headers.",
		 tls->bytes_out, stats->udp_out.data_bytes);
}

/* The sum by the count of packets is their mean. */
static void put_queue(FILE *out, const struct relay_server_counters *tls)
{
	put_gauge(out, "relay_queued_bytes", "Bytes that wait now for receivers over TLS.", tls->queued_bytes);
	put_head(out, "relay_queued_seconds_total", "counter", "Sum of the times that packets out waited in the relay.");
	fprintf(out, PREFIX "relay_queued_seconds_total{transport=\"tls\"} %.3f\n", (double)tls->waited_ms / 1e3);
	put_head(out, "relay_queued_seconds_longest", "gauge", "The longest of these in the last 10 to 20 s.");
	fprintf(out, PREFIX "relay_queued_seconds_longest{transport=\"tls\"} %.3f\n", (double)tls->longest_ms / 1e3);
}

static void put_drops(FILE *out, const struct public_node_stats *stats)
{
	const struct relay_server_counters *tls = &stats->relay;
	const struct udp_clients_counters *udp = &stats->udp;
	const struct sample samples[] = {
		{ "tls", "destination_unknown", tls->dropped_unknown },
		{ "tls", "queue_full", tls->dropped_queue },
		{ "tls", "rate_limit", tls->dropped_rate },
		{ "tls", "too_many_receivers", tls->dropped_unanswered },
		{ "tls", "malformed", tls->malformed },
		{ "udp", "destination_unknown", udp->dropped_unknown },
		{ "udp", "queue_full", stats->udp_out.full[RELAY_OUTBOX_DATA] },
		{ "udp", "rate_limit", udp->dropped_rate },
		{ "udp", "too_many_receivers", udp->dropped_contacts },
		{ "udp", "overload", udp->dropped_unfair },
		{ "udp", "to_or_from_tls", stats->dropped_bridge },
		{ "udp", "malformed", udp->malformed },
		{ "udp", "not_bound", udp->dropped_stranger },
		{ "udp", "strangers_limited", udp->dropped_limited },
		{ "udp", "sending_failed", stats->udp_out.failed[RELAY_OUTBOX_DATA] },
		{ "udp", "too_many_probes", stats->udp_out.full[RELAY_OUTBOX_PROBE] },
	};

	put_samples(out, "relay_dropped_packets_total", "counter", "Packets that were not passed on, by cause.", samples,
		    ARRAY_LEN(samples));
}

static void put_refusals(FILE *out, const struct public_node_stats *stats)
{
	const struct relay_server_counters *tls = &stats->relay;
	const struct udp_clients_counters *udp = &stats->udp;
	const struct sample samples[] = {
		{ "tls", "no_valid_tls", tls->refused_tls },
		{ "tls", "handshake_too_slow", tls->refused_timeout },
		{ "tls", "too_many_handshakes", tls->refused_handshakes },
		{ "tls", "too_many_of_one_source", tls->refused_rate },
		{ "tls", "relay_full", tls->refused_full },
		{ "tls", "not_a_member", tls->refused_not_member },
		{ "tls", "draining", tls->refused_draining },
		{ "tls", "no_file_descriptor", tls->refused_descriptors },
		{ "udp", "relay_full", udp->refused_full },
		{ "udp", "not_a_member", udp->refused_not_member },
		{ "udp", "draining", udp->refused_draining },
		{ "udp", "no_valid_cookie", udp->refused_cookie },
		{ "udp", "no_valid_proof", udp->refused_proof },
		{ "udp", "older_bind", udp->refused_old },
		{ "udp", "too_many_binds", udp->refused_busy },
	};

	put_samples(out, "relay_refused_total", "counter", "Connections and binds that came to nothing, by cause.",
		    samples, ARRAY_LEN(samples));
}

static void put_closed(FILE *out, const struct public_node_stats *stats)
{
	const struct relay_server_counters *tls = &stats->relay;
	const struct sample samples[] = {
		{ "tls", "replaced", tls->closed_replaced },
		{ "tls", "removed", tls->closed_removed },
		{ "tls", "silent", tls->closed_silent },
		{ "tls", "protocol_broken", tls->closed_protocol },
		{ "tls", "certificate_expired", tls->closed_expired },
		{ "tls", "drained", tls->closed_drained },
		{ "udp", "drained", stats->udp.closed_drained },
		{ "udp", "removed", stats->udp.closed_removed },
		{ "udp", "silent", stats->udp.closed_silent },
	};

	put_samples(out, "relay_closed_clients_total", "counter", "Clients that left not by themselves, by cause.",
		    samples, ARRAY_LEN(samples));
}

static void put_stun(FILE *out, const struct stun_server_counters *stun)
{
	const struct {
		const char *result;
		uint64_t n;
	} samples[] = {
		{ "answered", stun->answered },
		{ "garbage", stun->garbage },
		{ "not_a_request", stun->not_a_request },
		{ "too_small", stun->too_small },
		{ "rate_limited", stun->rate_limited },
		{ "unknown_attribute", stun->unknown_attribute },
		{ "sending_failed", stun->send_failed },
	};

	put_head(out, "stun_questions_total", "counter", "What was asked of the STUN server, by what came of it.");
	for (size_t i = 0; i < ARRAY_LEN(samples); i++)
		fprintf(out, PREFIX "stun_questions_total{result=\"%s\"} %" PRIu64 "\n", samples[i].result, samples[i].n);
}

/* By the names that all programs have for these. */
static void put_process(FILE *out, const struct relay_metrics *metrics)
{
	fprintf(out,
		"# HELP process_cpu_seconds_total CPU time of the process.\n"
		"# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.2f\n"
		"# HELP process_start_time_seconds When the process was started, since 1970.\n"
		"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %.0f\n"
		"# HELP process_resident_memory_bytes Memory in use.\n"
		"# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %" PRIu64 "\n"
		"# HELP process_open_fds Open file descriptors.\n"
		"# TYPE process_open_fds gauge\nprocess_open_fds %u\n"
		"# HELP process_max_fds Most that may be open.\n"
		"# TYPE process_max_fds gauge\nprocess_max_fds %u\n",
		metrics->cpu_s, metrics->started_s, metrics->resident_bytes, metrics->open_fds, metrics->max_fds);
}

char *relay_metrics_text(const struct relay_metrics *metrics)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		abort();
	put_head(out, "build_info", "gauge", "1, with the version.");
	fputs(PREFIX "build_info{version=\"" P2P_VERSION "\"} 1\n", out);
	put_gauge(out, "control_connected", "1 while control can be reached; relaying goes on without.",
		  metrics->has_control);
	put_gauge(out, "relay_serving", "1 while relay and STUN are served.", metrics->stats != NULL);
	put_gauge(out, "relay_draining", "1 while clients are sent away and none are taken.", metrics->is_draining);
	if (metrics->stats) {
		put_gauge(out, "relay_handshakes", "TLS connections now that are not clients yet.",
			  metrics->stats->relay.handshakes);
		put_traffic(out, metrics->stats);
		put_queue(out, &metrics->stats->relay);
		put_drops(out, metrics->stats);
		put_refusals(out, metrics->stats);
		put_closed(out, metrics->stats);
		put_stun(out, &metrics->stats->stun);
	}
	door_metrics_put(out, &metrics->doors);
	diglett_metrics_put(out, &metrics->diglett);
	webgw_metrics_put(out, &metrics->webgw);
	put_process(out, metrics);
	if (fclose(out) != 0)
		abort();
	return text;
}
