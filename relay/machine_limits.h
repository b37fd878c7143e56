/*
 * Does this machine let a public node serve as many as it would? What is in the way is told when p2pnode starts,
 * with the remedy, and not when the first client is lost by it.
 *
 *   machine_limits_read() ──► facts ──► machine_limits_judge() ──► warnings, for the log
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define MACHINE_MAX_WARNINGS 6
#define MACHINE_UDP_CLIENTS  131072 /* as udp_clients.h takes by itself */

struct machine_facts {
	uint64_t open_files;		       /* of this process at most */
	uint64_t receive_buffer, send_buffer;  /* bytes that a UDP socket gets of what it asks for; 0: not known */
	uint64_t conntrack_max;		       /* connections that the kernel tracks at most; 0: it tracks none */
	uint32_t lowest_port;		       /* that needs no capability */
	bool may_bind_low;		       /* has that capability */
};

struct machine_wants {
	uint32_t tls_clients, udp_clients; /* at most */
	uint64_t udp_buffer, udp_send_buffer; /* bytes */
	uint16_t tls_port, stun_port;
	bool has_sockets; /* they are open already */
};

struct machine_warning {
	char text[320];
};

/* How many warnings. Pure. */
uint32_t machine_limits_judge(const struct machine_facts *facts, const struct machine_wants *wants,
			      struct machine_warning ret[MACHINE_MAX_WARNINGS]);
void machine_limits_read(const struct machine_wants *wants, struct machine_facts *ret);
