/*
 * Two devices and a virtual cable: the world that the device tests play in.
 *
 *   alice 10.0.0.1, fd00::1 ── cable (a queue of datagrams, virtual time) ─── bob 10.0.0.2, fd00::2
 *
 * Datagrams wait on the cable until cable_run() hands them over, so a test may look at them, lose,
 * repeat, hold back or change them. Every event is a line of the trace.
 */
#pragma once

#include "node/wireguard/device.h"

#define CABLE_MAX     512
#define DATAGRAM_MAX 2048
#define INBOX_MAX    512

struct node;

struct datagram {
	struct node *from;
	struct wg_path path; /* as the sender was told to send */
	uint8_t ds;
	uint32_t size;
	uint8_t bytes[DATAGRAM_MAX];
};

struct node {
	struct world *world;
	const char *name;
	struct wg_device *device;
	struct wg_peer *peer; /* the other */
	struct secret_key secret;
	struct public_key public;
	struct endpoint address; /* where it sends from */
	struct wg_path heard;	 /* path of the last datagram it got */
	bool is_moved;		 /* routes lead elsewhere: what came by an interface is not answered by it */
	uint32_t n_fit;		 /* times it was asked whether a source fits */
	uint32_t n_inbox;
	struct {
		uint32_t size;
		uint8_t bytes[DATAGRAM_MAX];
	} inbox[INBOX_MAX]; /* plain packets, as delivered */
	uint32_t n_rejected, rejected_mtu;
	uint32_t n_sent_told; /* WG_EVENT_SENT */
};

struct world {
	struct wg_time now;
	uint32_t random;
	struct node alice, bob;
	uint32_t n_cable;
	struct datagram cable[CABLE_MAX]; /* oldest first */
	uint32_t n_sent;		/* datagrams ever sent */
	char trace[8192];
	bool trace_datagrams;
};

/* Both know each other; alice has bob's endpoint, bob waits to be called. */
void world_begin(struct world *w);
/* The same with a configuration of both (ports are filled in). */
void world_begin_with(struct world *w, const struct wg_config *config);
void world_end(struct world *w);

/* Sends one IPv4 UDP-like packet of n bytes (at least 20) whose payload is made from mark. */
void say(struct node *from, uint8_t mark, uint32_t n);
/* A packet of any kind; bytes has no room around it. */
void say_bytes(struct node *from, const uint8_t *bytes, uint32_t n);
/* n packets of the same size as one train. */
void say_train(struct node *from, uint8_t mark, uint32_t n, uint32_t size);
/* True when the inbox holds exactly one packet, and it is that of say(); empties the inbox. */
bool heard(struct node *node, uint8_t mark, uint32_t n);
uint32_t make_packet(const struct node *from, uint8_t mark, uint32_t n, uint8_t *ret);

/* Hands over what is on the cable, and what that causes, until it is empty. */
void cable_run(struct world *w);
void cable_lose(struct world *w);
/* Takes the oldest off the cable. */
struct datagram cable_take(struct world *w);
/* Hands it to whom it is addressed, as it is; the cable is not touched. */
void hand_over(struct world *w, const struct datagram *datagram);

/* Virtual time goes on; ticks happen when they are due, and the cable runs after each. */
void wait_s(struct world *w, uint64_t seconds);
/* The same, but all that is sent is lost. */
void wait_s_deaf(struct world *w, uint64_t seconds);

/* Compares and empties the trace. */
void expect_trace(struct world *w, const char *expected);
void note(struct world *w, const char *format, ...) P2P_PRINTF(2, 3);
/* Seals a session between the two: one packet from alice to bob. */
void connect_both(struct world *w);
struct wg_stats stats_of(struct node *node);
uint64_t drops_of(const struct node *node, enum wg_drop drop);
