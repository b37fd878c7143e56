/*
 * The relay's UDP sockets, for one thread: trains are received and sent in batches, in place.
 *
 *    socket ──► relay_inbox: up to 1024 messages, each one datagram or a train (UDP_GRO)
 *                    │  the owner looks at each, rewrites it where it lies
 *    socket ◄── relay_outbox: up to 1024 messages; what goes on to one client, and STUN answers to one address, are
 *                             joined (UDP_SEGMENT)
 *
 * What an outbox was given must stay where it is until it is flushed. Which address of ours was asked is had from
 * the kernel only where the socket does not say it, and an answer leaves by that.
 */
#pragma once

#include "common/refused_paths.h"
#include "relay/udp_clients.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define RELAY_SOCKET_BUFFER (7 << 20) /* for receiving: ten milliseconds of 5 Gb/s */
/* For sending: what is in it leaves in its order. Little, so that others do not wait for who sends much. */
#define RELAY_SEND_BUFFER (1 << 20)

struct relay_socket {
	int fd;		      /* -1: none */
	uint16_t number;      /* udp_way.socket */
	struct endpoint local; /* as bound */
	bool is_v6;
	bool tells_address; /* of many: with each message comes which of them was asked */
};

/* 0 or -errno. IPv6's wildcard takes IPv4, too. */
P2P_CHECK int relay_socket_open(const struct endpoint *address, uint16_t number, struct relay_socket *ret);
/* The same with one that is bound already; takes fd, also on failure. */
P2P_CHECK int relay_socket_adopt(int fd, uint16_t number, struct relay_socket *ret);
/* What is sent from now on may not be fragmented, or may, as at first. 0 or -errno. */
int relay_socket_set_whole(const struct relay_socket *sock, bool whole);
/* From now on the kernel tells by which interface messages came, whatever address it is bound to. 0 or -errno. */
P2P_CHECK int relay_socket_tell_interface(const struct relay_socket *sock);
void relay_socket_close(struct relay_socket *sock);

/* ---- receiving ---- */

#define RELAY_INBOX_MESSAGES 1024

struct relay_message {
	struct udp_way from;
	struct endpoint asked; /* the address of ours, if known, and port */
	uint8_t *bytes;	       /* writable */
	size_t len;
	size_t size; /* of each datagram but the last, which may be shorter; len if there is one */
	uint32_t ifindex; /* of the interface that it came by, where the kernel tells of it; else 0 */
};

struct relay_inbox;

/* NULL: out of memory. */
struct relay_inbox *relay_inbox_new(void);
void relay_inbox_free(struct relay_inbox *inbox);
/* From now on at most so many messages at a time: 1 to 1024, as at first. */
void relay_inbox_set_most(struct relay_inbox *inbox, uint32_t most);
/*
 * How many messages there are; 0: none now, or an error. They are valid until the next call. *ret_is_full: as many
 * as were asked for, or nearly as many as a small socket holds, so there may be more.
 */
uint32_t relay_inbox_receive(struct relay_inbox *inbox, const struct relay_socket *sock, bool *ret_is_full);
struct relay_message *relay_inbox_message(struct relay_inbox *inbox, uint32_t i);

/* ---- sending ---- */

enum relay_outbox_kind {
	RELAY_OUTBOX_DATA,
	RELAY_OUTBOX_ANSWER,
	RELAY_OUTBOX_STUN,
	RELAY_OUTBOX_PROBE, /* of a client to another: whole or not at all */
	RELAY_OUTBOX_N_KINDS,
};

struct relay_outbox_counters {
	/* Datagrams by kind: taken by the kernel; dropped, because the socket was full; refused otherwise. */
	uint64_t sent[RELAY_OUTBOX_N_KINDS], full[RELAY_OUTBOX_N_KINDS], failed[RELAY_OUTBOX_N_KINDS];
	uint64_t data_bytes; /* of the data and probes sent, with headers */
	uint64_t messages;   /* what all were sent in */
	uint64_t n_full;     /* times the socket was full */
};

#define RELAY_OUTBOX_MAX_LEN 65507 /* of a datagram or a train: 65535 - 20 - 8 */

struct relay_outbox;

/* sock, refused and counters are borrowed, and may be shared by outboxes of one thread. NULL: out of memory. */
struct relay_outbox *relay_outbox_new(const struct relay_socket *sock, struct refused_paths *refused,
				      struct relay_outbox_counters *counters);
void relay_outbox_free(struct relay_outbox *outbox);
/* One datagram; may flush. */
void relay_outbox_add(struct relay_outbox *outbox, enum relay_outbox_kind kind, const struct udp_way *to,
		      const uint8_t *bytes, size_t len);
/*
 * Data: n datagrams with one and the same header, each `size` bytes but the last, len in all. Joined with what
 * is waiting for that receiver from that sender; the order between two clients is kept. to->note is the outbox's.
 * May flush.
 */
void relay_outbox_add_run(struct relay_outbox *outbox, struct udp_way *to, const uint8_t *bytes, size_t len,
			  size_t size, uint32_t n);
/* One datagram that may not be fragmented, after what is waiting; it never waits itself. Flushes: not for many. */
void relay_outbox_send_whole(struct relay_outbox *outbox, const struct udp_way *to, const uint8_t *bytes, size_t len);
/*
 * At the end of a batch; now_s as refused_paths.h. When the socket is full, data waits (udp_backlog.h), also what is
 * added from then on; what else there is, is dropped.
 */
void relay_outbox_flush(struct relay_outbox *outbox, uint32_t now_s);
/* Does data wait until the socket takes more? Then relay_outbox_resume() when it does. */
bool relay_outbox_is_waiting(const struct relay_outbox *outbox);
void relay_outbox_resume(struct relay_outbox *outbox, uint32_t now_s);
