/*
 * A NAT in the words of RFC 4787, without its I/O: what it decides for each packet. The simulator
 * (tests/sim) asks it on virtual time, the NAT between two interfaces (nat_box.c) for real packets.
 *
 *    inside                         mapping                        sessions: with whom
 *
 *                    EIM  one a socket ──────────────┐        ┌─ remote 1   asked, open since …
 *    10.0.0.2:5000 ─ ADM  one a remote address ──────┼─ port ─┼─ remote 2   asked
 *                    APDM one a remote address:port ─┘        └─ remote 3   was let in
 *
 *    filter   EIF   whoever sends to the port is let in
 *             ADF   who has an address that was asked
 *             APDF  who was asked
 *
 * An answer leaves by the port its question came in by: a session belongs to the mapping that it was last
 * let in by. A mapping and a session end timeout_ns after they were last used. A session is what a router
 * counts as an entry of connection tracking.
 *
 * The caller gives the tables; they bound what the NAT holds. What finds them full is refused and counted.
 * Ports of ICMP are the identifiers of echo. No clock: now_ns must not go backwards. One thread.
 */
#pragma once

#include "common/endpoint.h"

#include <stdbool.h>
#include <stdint.h>

#define NAT_ADDRESSES_MAX 8

enum nat_behaviour {
	NAT_INDEPENDENT,      /* EIM, EIF */
	NAT_ADDRESS,	      /* ADM, ADF */
	NAT_ADDRESS_AND_PORT, /* APDM, APDF */
};

enum nat_protocol {
	NAT_UDP,
	NAT_TCP,
	NAT_ICMP,
	NAT_PROTOCOLS,
};

enum nat_ports {
	NAT_PORTS_PRESERVE, /* the port inside where it is free, else as RANDOM */
	NAT_PORTS_RANDOM,
	NAT_PORTS_STEP, /* the last one plus port_step */
};

/* From inside to an own public address. */
enum nat_hairpin {
	NAT_HAIRPIN_OFF,
	NAT_HAIRPIN_INTERNAL, /* arrives with the sender's address inside */
	NAT_HAIRPIN_EXTERNAL, /* … with its mapping's, as RFC 4787 wants it (REQ-9) */
};

/* Why a packet does not pass. */
enum nat_refusal {
	NAT_UNMAPPED = 1, /* no mapping has this port */
	NAT_FILTERED,
	NAT_FULL, /* no room for a mapping or a session, or no port is left */
	NAT_NO_HAIRPIN,
};

struct nat_rules {
	enum nat_behaviour mapping, filtering;
	uint64_t timeout_ns;
	uint64_t filter_lag_ns;	   /* a filter opens so long after the packet that asked */
	bool is_kept_by_inbound; /* what comes in is use, too; else only what goes out */
};

struct nat_config {
	struct nat_rules rules[NAT_PROTOCOLS];
	uint32_t addresses[NAT_ADDRESSES_MAX]; /* public, in host order */
	uint32_t n_addresses;		       /* at least 1 */
	bool is_pool_arbitrary;		       /* each mapping has the next address; else one address a host */
	enum nat_ports ports;
	uint16_t port_step;
	uint16_t first_port, last_port; /* what it has of ports, both included; 0, 0: 1024 to 65535 */
	enum nat_hairpin hairpin;
	uint64_t seed; /* of all that is random: same seed, same packets, same ports */
};

struct nat_link {
	struct nat_link *next, *previous;
};

struct nat_mapping {
	struct nat_link by_inside, by_outside, by_use;
	struct nat_link sessions;
	enum nat_protocol protocol;
	struct endpoint inside, outside;
	struct endpoint remote; /* as much of it as the mapping depends on, the rest zero */
	uint64_t open_ns, used_ns;
};

struct nat_session {
	struct nat_link by_remote, by_use, of_mapping;
	struct nat_mapping *mapping;
	struct endpoint remote;
	bool was_asked; /* by a packet from inside */
	uint64_t open_ns, used_ns;
};

/* The caller's; n_buckets is a power of two. */
struct nat_tables {
	struct nat_mapping *mappings;
	struct nat_session *sessions;
	struct nat_link *buckets; /* 3 × n_buckets */
	uint32_t n_mappings, n_sessions, n_buckets;
};

struct nat_counts {
	uint32_t mappings, mappings_peak;
	uint32_t sessions, sessions_peak;
	uint64_t mappings_made, sessions_made;
	uint64_t unmapped, filtered, full; /* packets refused */
};

struct nat {
	struct nat_config config;
	struct nat_tables tables;
	struct nat_link free_mappings, free_sessions;
	struct nat_link mappings[NAT_PROTOCOLS], sessions[NAT_PROTOCOLS]; /* the one unused longest first */
	struct nat_counts counts;
	uint64_t random;
	uint32_t next_address;
	uint16_t last_port[NAT_PROTOCOLS];
};

/* The tables stay the caller's, and must outlive the NAT. */
void nat_init(struct nat *nat, const struct nat_config *config, const struct nat_tables *tables);
/* "EIM-EIF" to "APDM-APDF", in any case. 0 or -EINVAL; writes only on success. */
P2P_CHECK int nat_parse_type(const char *name, enum nat_behaviour *ret_mapping,
			     enum nat_behaviour *ret_filtering);
/* NULL: "public". */
const char *nat_name(const struct nat_rules *rules);

bool nat_has_address(const struct nat *nat, const struct endpoint *endpoint);

/* A packet goes out: the source it has outside. 0 or NAT_FULL. */
P2P_CHECK int nat_out(struct nat *nat, uint64_t now_ns, enum nat_protocol protocol,
		      const struct endpoint *inside, const struct endpoint *remote,
		      struct endpoint *ret_outside);
/* One arrives at a public address: whom it is for. 0, NAT_UNMAPPED, NAT_FILTERED or NAT_FULL. */
P2P_CHECK int nat_in(struct nat *nat, uint64_t now_ns, enum nat_protocol protocol,
		     const struct endpoint *remote, const struct endpoint *outside,
		     struct endpoint *ret_inside);
/* From inside to a public address of this NAT: source and destination it has then. 0 or any refusal. */
P2P_CHECK int nat_turn(struct nat *nat, uint64_t now_ns, enum nat_protocol protocol,
		       const struct endpoint *from, const struct endpoint *outside,
		       struct endpoint *ret_source, struct endpoint *ret_inside);

/* For errors about packets: whose port this is, and by which port somebody talks. Changes nothing. */
P2P_CHECK bool nat_find_inside(const struct nat *nat, uint64_t now_ns, enum nat_protocol protocol,
			       const struct endpoint *outside, struct endpoint *ret_inside);
P2P_CHECK bool nat_find_outside(const struct nat *nat, uint64_t now_ns, enum nat_protocol protocol,
				const struct endpoint *inside, const struct endpoint *remote,
				struct endpoint *ret_outside);

/* Restarted: no mapping is left. Counts and the random sequence go on. */
void nat_forget(struct nat *nat);
/* Ends what has timed out; the counts are exact then. (Each packet does it, too.) */
void nat_expire(struct nat *nat, uint64_t now_ns);

/* Can two nodes behind these punch through, if nobody guesses ports? (NULL: no NAT.) */
bool nat_pair_can_be_direct(const struct nat_rules *a, const struct nat_rules *b);
