/*
 * The clients of a relay, all in one process, as tests/bench/relay measures with them: pairs of which one
 * sends numbered packets to the other through the relay, as fast as they arrive or at a rate.
 *
 *   main.c      options, the run, the result as JSON
 *   members.c   the clients' keys, made of their numbers; makes them members of a network
 *   udp.c       all clients over one socket, an address for each: ours, TURN, bare (the floor), and none (no relay)
 *   stream.c    a connection for each client: ours over TLS, DERP over TLS and over TCP, and bare TCP (the floor)
 *
 * The generator must not be what is measured: one thread that never sleeps, trains by UDP_SEGMENT and
 * UDP_GRO, or many datagrams of different clients in one sendmmsg(2).
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOAD_MAX_CLIENTS 1024
#define LOAD_MAX_DELAYS	 4000000 /* kept; more is not needed for a percentile */
#define LOAD_MIN_SIZE	 64

struct load;

/* What it takes to speak to one kind of relay. */
struct load_transport {
	const char *name;
	void (*connect)(struct load *load); /* all clients; ends the program when it cannot */
	/* Packets of one pair, of which some may be held back until flush. How many were taken. */
	uint32_t (*send)(struct load *load, uint32_t pair, uint32_t n);
	void (*flush)(struct load *load);
	/* All that is there: load_received() for each packet. */
	void (*receive)(struct load *load);
};

extern const struct load_transport load_udp, load_turn, load_none, load_bare, load_tls, load_tcp, load_derp,
	load_derp_tls;

struct load_pair {
	uint64_t n_sent, n_arrived_at; /* packets; one behind the number of the last that arrived */
};

struct load {
	const struct load_transport *transport;
	/* options */
	struct endpoint relay;
	struct public_key relay_key;   /* ours */
	const char *control_folder;    /* with the CA: TLS */
	uint32_t first_source;	       /* address of the first client, host order; the next ones in the next /24s */
	uint32_t n_pairs, size, train; /* packets that leave together */
	uint32_t window;	       /* packets of one pair on the way at most */
	const char *pid;	       /* of the relay, whose CPU time is counted */
	const char *tls_version, *tls_cipher; /* of all clients; NULL: no TLS */
	double seconds;
	uint32_t nap_us; /* rests so long between turns: beside others who need the processor */
	bool is_slow;	 /* the receivers look only now and then, and are sent to as fast as it goes all the same */
	double rate; /* packets a second of all pairs; 0: flood, then half of that */

	/* of a run */
	uint64_t run; /* packets of another run do not count */
	uint64_t now_ns;
	uint64_t n_sent, n_received, n_lost_reset;
	uint64_t n_delays;
	struct load_pair pairs[LOAD_MAX_CLIENTS / 2];
};

/* What a packet begins with; the rest is zeros. */
struct load_packet {
	uint64_t run, number, sent_ns; /* number: of its pair's packets, from 0 */
	uint32_t pair;
};

_Noreturn void load_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t load_now_ns(void);
/* Clients 2 * pair and 2 * pair + 1: the one that sends and the one that receives. */
static inline uint32_t load_sender(uint32_t pair)
{
	return 2 * pair;
}
static inline uint32_t load_receiver(uint32_t pair)
{
	return 2 * pair + 1;
}
/* The next packet of the pair. */
struct load_packet load_next(struct load *load, uint32_t pair);
/* A packet has arrived; bytes need not be aligned. */
void load_received(struct load *load, const uint8_t *bytes, size_t len);
/* Address of a client, host order. */
uint32_t load_address(const struct load *load, uint32_t client);

/* members.c */
/* The client's keys are those of this number and what is added here, so that two processes have clients of their own. */
extern uint32_t load_first_client;
void load_keys(uint32_t client, struct secret_key *ret_secret, struct public_key *ret_public);
/* Adds the clients to a network that control does not serve now. */
void load_make_members(const char *control_folder, uint32_t n);
