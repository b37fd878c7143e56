/*
 * What waits while a socket is full: a queue a sender, served in turn by bytes (deficit round robin), so that who
 * sends much waits for itself.
 *
 *   put ──► queue of the sender ─┐               ┌─► settle
 *   put ──► queue of another ────┼─► take, take, … ┤
 *   put ──► …                   ─┘   ▲             └─► put_back: what was not sent after all
 *                                    └─ first ─────────┘
 *
 * What was put back has had its turn: it is taken before all others, so that who waits for one datagram is not passed
 * over for as long as the socket takes a few at a time. All share a fixed pool. When it is full the queue with most in
 * it (datagrams: a place is a place) loses its oldest: a fast sender those of its own. Senders whose slots are equal modulo UDP_BACKLOG_QUEUES share a queue. Nothing is allocated after the
 * beginning; memory is touched only when something waits. One thread. No I/O.
 */
#pragma once

#include "relay/udp_clients.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UDP_BACKLOG_QUEUES  1024
#define UDP_BACKLOG_PLACES  4096
#define UDP_BACKLOG_MAX_LEN 9216 /* of a datagram: what links of 9000 bytes take; longer ones are dropped */

struct udp_backlog;

/* NULL: out of memory. */
struct udp_backlog *udp_backlog_new(void);
void udp_backlog_free(struct udp_backlog *backlog);

bool udp_backlog_is_empty(const struct udp_backlog *backlog);
/* A copy. How many datagrams were dropped for it, perhaps itself. */
uint32_t udp_backlog_put(struct udp_backlog *backlog, uint32_t sender, const struct udp_way *to, const uint8_t *bytes,
			 size_t len);
/* The next in turn; NULL: none. The bytes stay until udp_backlog_settle(). */
const uint8_t *udp_backlog_take(struct udp_backlog *backlog, struct udp_way *ret_to, size_t *ret_len);
/* One that was taken, known by its bytes: the next to be taken. So what was taken last is put back first. */
void udp_backlog_put_back(struct udp_backlog *backlog, const uint8_t *bytes);
/* Are these bytes of one that was taken? */
bool udp_backlog_has(const struct udp_backlog *backlog, const uint8_t *bytes);
/* All that was taken and not put back has gone. */
void udp_backlog_settle(struct udp_backlog *backlog);
