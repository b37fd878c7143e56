/*
 * How much may a client of the relay over UDP send, and to whom?
 *
 *   datagrams ──► is_fair: its share of a round ──► may_contact: to how many ──► may_pass: bits a second ──► forwarded
 *                                                   that never sent to it
 *
 * A part of udp_clients, on its clients. Pure; one thread. What a limit refuses the caller counts.
 */
#pragma once

#include "relay/udp_clients_internal.h"

/* Counts n packets more of this round (udp_clients_end_round()). */
bool udp_limits_is_fair(struct udp_clients *clients, struct client *client, uint32_t n);
/* So many of these are asked about again. */
void udp_limits_uncount(struct udp_clients *clients, struct client *client, uint32_t n);
bool udp_limits_may_contact(struct udp_clients *clients, struct client *client, struct client *to, uint64_t now_ns);
/* How many of n datagrams, of `size` bytes each but the last, n_bytes in all, the rates let pass; these are charged. */
uint32_t udp_limits_may_pass(struct udp_clients *clients, struct client *client, uint32_t n, size_t size, size_t n_bytes,
			     uint64_t now_ns);
