/*
 * A client of the relay over UDP, for tests: a blocking socket, on which each step awaits what must come next.
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"
#include "common/relay_udp_wire.h"

#include <stddef.h>
#include <stdint.h>

#define ARRIVAL_ROOM 65536

struct client {
	struct secret_key secret;
	struct public_key public;
	struct relay_udp_key proof;
	struct endpoint relay; /* as this one reaches it */
	int fd;
	uint32_t slot, token, challenge;
	uint64_t number;
	uint8_t cookie[RELAY_UDP_COOKIE_LEN];
};

/* What arrived: one datagram, or several joined by the kernel. */
struct arrival {
	uint8_t bytes[ARRIVAL_ROOM];
	size_t len, size;
	struct endpoint from;
	struct relay_udp_datagram datagram; /* the first */
};

/* Of the last datagram that any client received. */
extern struct arrival arrival;

struct endpoint at(const char *ip, uint16_t port);

/* With new keys, and without a socket. */
void make_client(struct client *client, const struct public_key *relay_key);
/* Opens its socket at this address of the machine, and has it bound. */
void bind_client(struct client *client, const char *ip, struct endpoint relay);
int open_client(const char *ip);
void send_bytes(const struct client *client, const void *bytes, size_t n);
void send_datagram(const struct client *client, const struct relay_udp_datagram *datagram);
void receive_bytes(const struct client *client);
void await(const struct client *client, enum relay_udp_type type);
void ask(struct client *client);
size_t make_bind(const struct client *client, uint8_t bytes[RELAY_UDP_MAX_LEN]);
void send_bind(struct client *client);
void await_bound(struct client *client);
struct relay_udp_header header_to(const struct client *client, enum relay_udp_type type, uint32_t to);
void say(const struct client *from, const struct client *to, const char *text);
void await_said(const struct client *client, const struct client *from, const char *text);
void ping(const struct client *client);
