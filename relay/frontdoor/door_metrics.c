#include "relay/frontdoor/door_metrics.h"

#include "common/macros.h"

#include <inttypes.h>
#include <stddef.h>

#define PREFIX	"p2pnode_"
#define N_DOORS 2

/* A counter of a struct, and what it is called. */
struct figure {
	const char *label;
	size_t offset;
};

static uint64_t value_at(const void *counters, size_t offset)
{
	return *(const uint64_t *)((const char *)counters + offset);
}

static void put_head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

/* ---- doors ---- */

static const char *const door_names[N_DOORS] = { "front", "exposed" };

#define OF_DOOR(member) offsetof(struct front_door_counters, member)

static void put_door_figure(FILE *out, const struct front_door_counters *const doors[N_DOORS], const char *name,
			    const char *type, const char *help, size_t offset)
{
	put_head(out, name, type, help);
	for (int i = 0; i < N_DOORS; i++)
		if (doors[i])
			fprintf(out, PREFIX "%s{door=\"%s\"} %" PRIu64 "\n", name, door_names[i],
				value_at(doors[i], offset));
}

static void put_routed(FILE *out, const struct front_door_counters *const doors[N_DOORS])
{
	put_head(out, "door_routed_total", "counter", "Visitors that were led to a target, by protocol.");
	for (int i = 0; i < N_DOORS; i++)
		for (int protocol = 0; doors[i] && protocol < SNIFFER_N_PROTOCOLS; protocol++)
			if (protocol != SNIFFER_UNKNOWN)
				fprintf(out, PREFIX "door_routed_total{door=\"%s\",protocol=\"%s\"} %" PRIu64 "\n",
					door_names[i], sniffer_protocol_name((enum sniffer_protocol)protocol),
					doors[i]->routed[protocol]);
}

static void put_refused(FILE *out, const struct front_door_counters *const doors[N_DOORS])
{
	static const struct figure causes[] = {
		{ "unknown_host", OF_DOOR(unknown_host) },
		{ "nobody_there", OF_DOOR(nobody_there) },
		{ "not_allowed", OF_DOOR(not_allowed) },
		{ "over_rate", OF_DOOR(over_rate) },
		{ "not_by_a_front_door", OF_DOOR(no_door) },
		{ "header_not_understood", OF_DOOR(bad_header) },
		{ "relay_queue_full", OF_DOOR(relay_over_limit) },
		{ "webgw_queue_full", OF_DOOR(webgw_over_limit) },
		{ "in_a_ring", OF_DOOR(in_a_ring) },
		{ "too_slow", OF_DOOR(too_slow) },
		{ "left_early", OF_DOOR(left_early) },
		{ "all_places_taken", OF_DOOR(over_limit) },
		{ "too_many_of_one_source", OF_DOOR(over_source_limit) },
		{ "no_file_descriptor", OF_DOOR(no_descriptors) },
		{ "target_not_reached", OF_DOOR(unreachable) },
		{ "target_silent", OF_DOOR(connect_timed_out) },
		{ "no_agent_dialled_back", OF_DOOR(dial_timed_out) },
		{ "too_many_wait_for_agents", OF_DOOR(dial_over_limit) },
		{ "too_many_of_one_source_wait_for_agents", OF_DOOR(dial_over_source_limit) },
		{ "agent_without_tls", OF_DOOR(dial_bare) },
	};

	put_head(out, "door_refused_total", "counter", "Visitors that were not led to a target, by cause.");
	for (int i = 0; i < N_DOORS; i++) {
		uint64_t not_understood = 0;
		if (!doors[i])
			continue;
		for (size_t j = 0; j < ARRAY_LEN(causes); j++)
			fprintf(out, PREFIX "door_refused_total{door=\"%s\",cause=\"%s\"} %" PRIu64 "\n", door_names[i],
				causes[j].label, value_at(doors[i], causes[j].offset));
		for (int reason = 0; reason < SNIFFER_N_REASONS; reason++)
			not_understood += doors[i]->refused[reason];
		fprintf(out, PREFIX "door_refused_total{door=\"%s\",cause=\"not_understood\"} %" PRIu64 "\n",
			door_names[i], not_understood);
	}
}

static void put_datagrams(FILE *out, const struct front_door_counters *const doors[N_DOORS])
{
	static const struct figure causes[] = {
		{ "unknown_port", OF_DOOR(datagrams.unknown_port) },
		{ "nobody_there", OF_DOOR(datagrams.nobody_there) },
		{ "not_allowed", OF_DOOR(datagrams.not_allowed) },
		{ "over_rate", OF_DOOR(datagrams.over_rate) },
		{ "over_rate_of_exposure", OF_DOOR(datagrams.over_gate_rate) },
		{ "all_places_taken", OF_DOOR(datagrams.over_limit) },
		{ "too_many_of_one_source", OF_DOOR(datagrams.over_source_limit) },
		{ "target_not_reached", OF_DOOR(datagrams.unreachable) },
		{ "no_file_descriptor", OF_DOOR(datagrams.no_descriptors) },
		{ "not_by_a_front_door", OF_DOOR(datagrams.no_door) },
		{ "header_not_understood", OF_DOOR(datagrams.bad_header) },
		{ "in_a_ring", OF_DOOR(datagrams.in_a_ring) },
		{ "socket_full", OF_DOOR(datagrams.full) },
		{ "too_large", OF_DOOR(datagrams.too_big) },
		{ "not_sent", OF_DOOR(datagrams.failed) },
	};

	put_door_figure(out, doors, "door_udp_flows", "gauge", "Visitors of UDP ports now.", OF_DOOR(datagrams.flows_now));
	put_door_figure(out, doors, "door_udp_flows_total", "counter", "Visitors of UDP ports.", OF_DOOR(datagrams.flows));
	put_door_figure(out, doors, "door_udp_evicted_total", "counter", "Visitors of UDP ports that made room for others.",
			OF_DOOR(datagrams.evicted));
	put_door_figure(out, doors, "door_udp_datagrams_in_total", "counter", "Datagrams given to targets.",
			OF_DOOR(datagrams.datagrams_in));
	put_door_figure(out, doors, "door_udp_datagrams_out_total", "counter", "Datagrams given to visitors.",
			OF_DOOR(datagrams.datagrams_out));
	put_door_figure(out, doors, "door_udp_bytes_in_total", "counter", "Bytes of datagrams given to targets.",
			OF_DOOR(datagrams.bytes_in));
	put_door_figure(out, doors, "door_udp_bytes_out_total", "counter", "Bytes of datagrams given to visitors.",
			OF_DOOR(datagrams.bytes_out));
	put_head(out, "door_udp_dropped_total", "counter", "Datagrams of UDP ports that were dropped, by cause.");
	for (int i = 0; i < N_DOORS; i++)
		for (size_t j = 0; doors[i] && j < ARRAY_LEN(causes); j++)
			fprintf(out, PREFIX "door_udp_dropped_total{door=\"%s\",cause=\"%s\"} %" PRIu64 "\n", door_names[i],
				causes[j].label, value_at(doors[i], causes[j].offset));
}

static void put_doors(FILE *out, const struct front_door_counters *const doors[N_DOORS])
{
	put_door_figure(out, doors, "door_visitors", "gauge", "Visitors now.", OF_DOOR(visitors_now));
	put_door_figure(out, doors, "door_visitors_total", "counter", "Visitors that came.", OF_DOOR(visitors));
	put_door_figure(out, doors, "door_bytes_in_total", "counter", "Bytes given to targets.", OF_DOOR(bytes_in));
	put_door_figure(out, doors, "door_bytes_out_total", "counter", "Bytes given to visitors.", OF_DOOR(bytes_out));
	put_door_figure(out, doors, "door_to_relay_total", "counter", "Visitors that were handed to the relay, which has a port "
			"with the door.", OF_DOOR(to_relay));
	put_door_figure(out, doors, "door_to_webgw_total", "counter", "Agents that came to webgw by the same port.", OF_DOOR(to_webgw));
	put_door_figure(out, doors, "door_tried_another_total", "counter", "Of several members that publish a host one did not "
			"answer, and a visitor was led to the next.", OF_DOOR(tried_another));
	put_door_figure(out, doors, "door_warm", "gauge", "Connections to members, or of front doors, that wait for visitors.",
			OF_DOOR(warm_now));
	put_door_figure(out, doors, "door_warm_used_total", "counter", "Visitors that were led to a member by such a connection.",
			OF_DOOR(warm_used));
	put_door_figure(out, doors, "door_warm_missed_total", "counter", "Visitors for whom there was none.",
			OF_DOOR(warm_missed));
	put_door_figure(out, doors, "door_warm_dead_total", "counter", "Visitors whose connection was dead, and who were led to the "
			"same member by another.", OF_DOOR(warm_dead));
	put_door_figure(out, doors, "door_warm_ended_total", "counter", "Such connections that the member ended, or that could "
			"not be made.", OF_DOOR(warm_ended));
	put_door_figure(out, doors, "door_streams_taken_total", "counter", "Visitors of the door that ran before a restart, "
			"who were taken up.", OF_DOOR(streams_taken));
	put_door_figure(out, doors, "door_streams_lost_total", "counter", "Visitors of the door that ran before a restart, "
			"who could not be handed over or taken up.", OF_DOOR(streams_lost));
	put_routed(out, doors);
	put_refused(out, doors);
	put_datagrams(out, doors);
}

/* ---- exposures ---- */

#define OF_EXPOSURE(member) offsetof(struct door_gate_counters, member)

static void put_exposure_figure(FILE *out, const struct door_metrics *metrics, const char *name, const char *type,
				const char *help, size_t offset)
{
	put_head(out, name, type, help);
	for (uint32_t i = 0; i < metrics->n_exposures; i++)
		fprintf(out, PREFIX "%s{host=\"%s\"} %" PRIu64 "\n", name, metrics->exposures[i].host,
			value_at(&metrics->exposures[i].counters, offset));
}

static void put_exposure_refused(FILE *out, const struct door_metrics *metrics)
{
	static const struct figure causes[] = {
		{ "not_allowed", OF_EXPOSURE(refused[DOOR_GATE_NOT_ALLOWED]) },
		{ "over_rate", OF_EXPOSURE(refused[DOOR_GATE_OVER_RATE]) },
		{ "over_rate_of_source", OF_EXPOSURE(refused[DOOR_GATE_OVER_SOURCE_RATE]) },
		{ "target_not_reached", OF_EXPOSURE(unreachable) },
	};

	put_head(out, "exposure_refused_total", "counter", "Visitors of it that were not served, by cause.");
	for (uint32_t i = 0; i < metrics->n_exposures; i++)
		for (size_t j = 0; j < ARRAY_LEN(causes); j++)
			fprintf(out, PREFIX "exposure_refused_total{host=\"%s\",cause=\"%s\"} %" PRIu64 "\n",
				metrics->exposures[i].host, causes[j].label,
				value_at(&metrics->exposures[i].counters, causes[j].offset));
}

static void put_exposures(FILE *out, const struct door_metrics *metrics)
{
	put_exposure_figure(out, metrics, "exposure_visitors", "gauge", "Visitors of it now.", OF_EXPOSURE(visitors_now));
	put_exposure_figure(out, metrics, "exposure_visitors_total", "counter", "Visitors that were let through to it.",
			    OF_EXPOSURE(visitors));
	put_exposure_figure(out, metrics, "exposure_bytes_in_total", "counter", "Bytes given to its target.",
			    OF_EXPOSURE(bytes_in));
	put_exposure_figure(out, metrics, "exposure_bytes_out_total", "counter", "Bytes given to its visitors.",
			    OF_EXPOSURE(bytes_out));
	put_exposure_refused(out, metrics);
	put_head(out, "exposure_target_up", "gauge", "1 if its target answered when it was tried last.");
	for (uint32_t i = 0; i < metrics->n_exposures; i++)
		fprintf(out, PREFIX "exposure_target_up{host=\"%s\"} %d\n", metrics->exposures[i].host,
			metrics->exposures[i].counters.state == DOOR_TARGET_UP);
}

void door_metrics_put(FILE *out, const struct door_metrics *metrics)
{
	const struct front_door_counters *const doors[N_DOORS] = { metrics->front, metrics->exposed };

	if (metrics->front || metrics->exposed)
		put_doors(out, doors);
	if (metrics->n_exposures > 0)
		put_exposures(out, metrics);
}
