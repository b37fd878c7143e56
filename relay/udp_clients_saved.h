/*
 * Clients over UDP, handed over to the relay that runs next.
 *
 *   udp_clients ──► save ──► sealed with the node key ──► new_from ──► udp_clients
 *
 * No I/O and no clock. sodium_init() must have been called.
 */
#pragma once

#include "relay/udp_clients.h"

/*
 * Handing over to the relay that runs next: who is bound, and what cookies and tokens are made of, so that nobody
 * needs to be bound anew. Not the node key, with which it is sealed; a secret all the same: it is good for whoever can
 * read it to move clients away. *ret is on the heap.
 */
void udp_clients_save(const struct udp_clients *clients, uint64_t now_ns, uint8_t **ret, size_t *ret_len);
/*
 * 0, -ENOMEM, or UDP_CLIENTS_E_SAVED when it is not whole, of another key, or more than 60 s old by the clock of the
 * machine. Sockets are those of the same numbers; n_sockets: which there are. Who was bound is asked to be so anew
 * when it pings next, and is served meanwhile.
 */
#define UDP_CLIENTS_E_SAVED 1
P2P_CHECK int udp_clients_new_from(const struct udp_clients_config *config, const uint8_t *saved, size_t len,
				   uint32_t n_sockets, uint64_t now_ns, struct udp_clients **ret);
/* The same from what was sealed; for tests. */
P2P_CHECK int udp_clients_new_from_plain(const struct udp_clients_config *config, const uint8_t *plain, size_t len,
					 uint32_t n_sockets, uint64_t now_ns, struct udp_clients **ret);
