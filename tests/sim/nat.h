/*
 * A NAT on virtual time, with the behaviours of RFC 4787: how it maps (one outside port for a socket,
 * or one for each remote address, or for each remote ip:port) and whom it lets in (anybody, whom
 * the socket has sent to by address, or by address and port). Its filter may open a moment after
 * the mapping exists, as real ones do.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <stdint.h>

#define NAT_MAX_MAPPINGS 96
#define NAT_MAX_FILTERS	 48

enum nat_behaviour {
	NAT_INDEPENDENT,      /* EIM, EIF */
	NAT_ADDRESS,	      /* ADM, ADF */
	NAT_ADDRESS_AND_PORT, /* APDM, APDF */
};

struct nat_filter {
	struct endpoint remote;
	uint64_t open_ns, used_ns;
};

struct nat_mapping {
	struct endpoint inside, remote; /* remote: what the mapping depends on, the rest zero */
	uint16_t port;			/* outside; 0: free */
	uint64_t used_ns;
	uint32_t n_filters;
	struct nat_filter filters[NAT_MAX_FILTERS];
};

struct nat {
	uint32_t ip; /* outside */
	enum nat_behaviour mapping, filtering;
	bool hairpin;
	bool udp_cut; /* carries nothing but TCP */
	uint64_t filter_lag_ns, timeout_ns;
	uint16_t next_port;
	struct nat_mapping mappings[NAT_MAX_MAPPINGS];
};

/* A datagram goes out: the source it has outside. False: cut. */
bool nat_out(struct nat *nat, uint64_t now_ns, const struct endpoint *inside, const struct endpoint *remote,
	     struct endpoint *ret_source);
/* A datagram from outside arrives at this port: whom it is for. False: not let in. */
bool nat_in(struct nat *nat, uint64_t now_ns, const struct endpoint *remote, uint16_t port,
	    struct endpoint *ret_inside);
/* The NAT was restarted. */
void nat_forget(struct nat *nat);

/* Can two nodes behind these NATs punch through? (NULL: no NAT.) */
bool nat_pair_can_be_direct(const struct nat *a, const struct nat *b);
const char *nat_name(const struct nat *nat);
