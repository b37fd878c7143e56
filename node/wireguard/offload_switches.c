#include "node/wireguard/offload_switches.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[OFFLOAD_N_KINDS] = {
	[OFFLOAD_TUN_GSO_READ] = "tun-gso-read",
	[OFFLOAD_UDP_GSO] = "udp-gso",
	[OFFLOAD_UDP_GRO] = "udp-gro",
	[OFFLOAD_TUN_GRO_WRITE] = "tun-gro-write",
};

const char *offload_kind_name(enum offload_kind kind)
{
	return names[kind];
}

/* what is wanted */

static int switch_on(struct offload_switches *switches, const char *name, size_t len)
{
	for (int kind = 0; kind < OFFLOAD_N_KINDS; kind++) {
		if (strlen(names[kind]) != len || memcmp(names[kind], name, len) != 0)
			continue;
		switches->off[kind] = false;
		return 0;
	}
	return -EINVAL;
}

int offload_switches_parse(const char *text, struct offload_switches *ret, struct error *reterr)
{
	const bool all = strcmp(text, "all") == 0, none = strcmp(text, "none") == 0;
	struct offload_switches switches;
	const char *at = text;

	for (int kind = 0; kind < OFFLOAD_N_KINDS; kind++)
		switches.off[kind] = !all;
	for (bool more = !all && !none; more;) {
		size_t len = strcspn(at, ",");
		if (switch_on(&switches, at, len) != 0)
			return error_set(reterr, -EINVAL,
					 "offloads '%s': must be all, none, or some of tun-gso-read, "
					 "tun-gro-write, udp-gso, udp-gro, separated by commas",
					 text);
		more = at[len] == ',';
		at += len + 1;
	}
	*ret = switches;
	return 0;
}

void offload_switches_print(const struct offload_switches *switches, char ret[OFFLOAD_SWITCHES_TEXT])
{
	size_t len = 0;

	for (int kind = 0; kind < OFFLOAD_N_KINDS; kind++)
		if (!switches->off[kind])
			len += (size_t)sprintf(ret + len, "%s%s", len ? "," : "", names[kind]);
	if (len == 0)
		strcpy(ret, "none");
}

int offload_switches_from_environment(struct offload_switches *switches, struct error *reterr)
{
	const char *text = getenv("P2P_OFFLOADS");

	return text ? offload_switches_parse(text, switches, reterr) : 0;
}

/* what happens */

bool offloads_want(const struct offloads *offloads, enum offload_kind kind)
{
	return !offloads || !offloads->switches.off[kind];
}

static void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

void offloads_used(struct offloads *offloads, enum offload_kind kind)
{
	if (offloads)
		count(&offloads->gauges[kind].n_used);
}

void offloads_fell_back(struct offloads *offloads, enum offload_kind kind)
{
	if (offloads)
		count(&offloads->gauges[kind].n_fell_back);
}

void offloads_refused(struct offloads *offloads, enum offload_kind kind)
{
	if (offloads)
		count(&offloads->gauges[kind].n_refused);
}

void offloads_set_error(struct offloads *offloads, enum offload_kind kind, int error)
{
	if (offloads)
		atomic_store_explicit(&offloads->gauges[kind].error, error, memory_order_relaxed);
}

struct offload_report offloads_report(const struct offloads *offloads, enum offload_kind kind)
{
	const struct offload_gauge *gauge = &offloads->gauges[kind];
	int error = atomic_load_explicit(&gauge->error, memory_order_relaxed);
	const char *error_name = error ? strerrorname_np(error) : "";
	bool is_off = offloads->switches.off[kind];

	return (struct offload_report){
		.name = names[kind],
		.state = is_off ? "off" : error ? "refused" : "on",
		.error = is_off || !error_name ? "" : error_name,
		.n_used = atomic_load_explicit(&gauge->n_used, memory_order_relaxed),
		.n_refused = atomic_load_explicit(&gauge->n_refused, memory_order_relaxed),
		.n_fell_back = atomic_load_explicit(&gauge->n_fell_back, memory_order_relaxed),
	};
}
