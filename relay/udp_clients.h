/*
 * The relay's clients over UDP: who they are, where they are, and where a datagram of theirs goes
 * (docs/PROTOCOL-relay.md, "Over UDP").
 *
 *                     wrong cookie: moved                  silent, or no longer a member
 *   ask ──► cookie ──────── bind ──────► bound ───────────────────────────────────────────► gone
 *                           │  ▲          │ │ ▲
 *                           │  └──────────┘ └─┘ find, ping, data; a later bind moves it
 *                           └─► refused
 *
 * A slot's number has a generation in it, so that what is meant for one who has gone does not reach the next
 * in its place. A stranger costs hashes and at most one short answer; a Diffie-Hellman is computed for
 * members only, once for each. What keeps a client here are pings that return a challenge of the last
 * minute and a half: addresses change hands.
 *
 * Clients over TLS ("elsewhere") have slots as well, so that both reach each other: the caller says who is there, and
 * carries their packets. A node that is here and there is reached the way its last packet came.
 *
 * No I/O and no clock: the caller brings datagrams and sends what it is told. Times are of one monotonic clock.
 * One thread. sodium_init() must have been called.
 */
#pragma once

#include "common/endpoint.h"
#include "common/key.h"
#include "common/relay_udp_wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UDP_CLIENTS_MAX (1u << 20) /* more cannot be numbered */

struct udp_clients;

/* Where a datagram came from and where it arrived: an answer goes back the same way. */
struct udp_way {
	struct endpoint remote;
	uint8_t local_ip[16]; /* the address of ours that was asked; all zero: as the socket has it */
	uint32_t ifindex;     /* of a link-local address of ours; else 0 */
	uint16_t socket, note; /* the caller's: which of its sockets; what it likes to find again with this way */
};

struct udp_clients_config {
	struct secret_key node_key; /* of this node; copied, wiped when freed */
	/* What is saved is read back only where this is the same: of the sockets, whose numbers are saved, and of the clock. */
	uint8_t saved_for[32];
	void *owner;
	/* NULL: everybody who proves to have a key. */
	bool (*is_member)(void *owner, const struct public_key *node_key);
	/*
	 * For those elsewhere: this one is reached here from now on, or not any more. Must come there in its order, and
	 * never be lost; at most twice for each udp_clients_add_elsewhere() or _ping_elsewhere(). May be NULL.
	 */
	void (*tell_reached)(void *owner, const struct public_key *node_key, bool is_here);
	uint32_t max_clients;		  /* 0: 131072 */
	uint8_t keep_alive_s;		  /* at most 120; 0: 20 */
	uint32_t max_answers;		  /* a second to whoever has proven nothing; 0: 100000 */
	uint32_t max_binds_source;	  /* first ones a second of one /24 or /56; 0: 200, twice that at once */
	uint32_t max_proofs;		  /* Diffie-Hellmans a second; 0: 2000 */
	uint64_t max_rate_client, max_rate; /* bits a second forwarded, of one client and of all; 0: no limit */
	uint32_t max_contacts; /* receivers of one client that never sent to it, at once, and 1/16 of it a second; 0: 1024 */
};

struct udp_clients_counters {
	uint32_t clients; /* now */
	uint64_t bound, moved; /* for the first time; anew */
	uint64_t packets, bytes; /* of clients over UDP, forwarded */
	uint64_t cookies;
	/* Not bound, by reason. */
	uint64_t refused_cookie, refused_not_member, refused_proof, refused_old, refused_full, refused_busy,
		refused_draining;
	/* Clients that left, by reason. */
	uint64_t closed_silent, closed_removed, closed_drained;
	/* Datagrams dropped, by reason. */
	uint64_t malformed, dropped_stranger, dropped_unknown, dropped_limited, dropped_rate, dropped_contacts, dropped_unfair;
};

struct udp_clients_client {
	struct public_key node_key;
	struct udp_way way;
	uint32_t slot;
	uint64_t bound_ns, proven_ns; /* when it was bound, or moved; when it last proved to be there */
	uint64_t packets_in, bytes_in, packets_out, bytes_out;
};

#define UDP_CLIENTS_BUSIEST 64

struct udp_clients_busiest {
	uint64_t round; /* grows with every list; 0: none yet */
	uint32_t n;
	struct udp_clients_client clients[UDP_CLIENTS_BUSIEST];
};

enum udp_clients_verdict {
	UDP_CLIENTS_DROP,
	UDP_CLIENTS_ANSWER,  /* to where it came from */
	UDP_CLIENTS_FORWARD, /* the datagram itself, whose header was rewritten if it goes to one of ours */
};

/* Where data goes on. Borrowed, until the next call that is not a route. */
struct udp_clients_route {
	bool is_dropped;     /* beyond a limit: nowhere */
	struct udp_way *way; /* NULL: to a client elsewhere */
	const struct public_key *from, *to;
};

struct udp_clients_result {
	uint8_t answer[RELAY_UDP_MAX_LEN];
	size_t answer_len;
	struct udp_clients_route route; /* of FORWARD */
	/* With an answer to a bind: to be sent to where the client was before; notice_len 0: nothing. */
	struct udp_way notice_to;
	uint8_t notice[RELAY_UDP_MAX_LEN];
	size_t notice_len;
};

/* 0 or -ENOMEM. */
P2P_CHECK int udp_clients_new(const struct udp_clients_config *config, struct udp_clients **ret);
struct udp_clients *udp_clients_free(struct udp_clients *clients); /* takes NULL, returns NULL */

/*
 * One datagram. bytes are changed when it is to be forwarded. Answer and notice together are no longer than what
 * they answer.
 */
enum udp_clients_verdict udp_clients_take(struct udp_clients *clients, const struct udp_way *from, void *bytes,
					  size_t len, uint64_t now_ns, struct udp_clients_result *ret);

/*
 * The packet path: len bytes of datagrams that came at once from one address, each of `size` bytes but the last,
 * which may be shorter. If the first can be forwarded: rewrites its header, and those of the ones behind it that
 * begin with the same, unless they go elsewhere, and returns how many these are. Otherwise 0: the first is one for
 * udp_clients_take().
 */
uint32_t udp_clients_route(struct udp_clients *clients, const struct udp_way *from, uint8_t *bytes, size_t len,
			   size_t size, uint64_t now_ns, struct udp_clients_route *ret);

/*
 * From one of these to the next is a round: always as long, some milliseconds. After one in which more came in than
 * can be carried, those that sent most may send a quarter less in the next, before it costs much, down to twice what
 * clients send on average: others do not wait for them. It grows again when there is room.
 */
void udp_clients_end_round(struct udp_clients *clients, bool is_overloaded);

/* ---- clients elsewhere ---- */

/* It has come there, or has sent a packet there. */
void udp_clients_add_elsewhere(struct udp_clients *clients, const struct public_key *node_key, uint64_t now_ns);
void udp_clients_remove_elsewhere(struct udp_clients *clients, const struct public_key *node_key);
/* It pings there: when it has sent no packet here for a second, it is reached there. So who only receives can choose. */
void udp_clients_ping_elsewhere(struct udp_clients *clients, const struct public_key *node_key, uint64_t now_ns);

enum udp_clients_place { UDP_CLIENTS_NOWHERE, UDP_CLIENTS_HERE, UDP_CLIENTS_ELSEWHERE };
/*
 * A packet of len bytes from a client elsewhere: where is its receiver? HERE: *ret is what its datagram begins with, and
 * *ret_way the way it goes. ELSEWHERE: it has gone back there, and the packet goes there, too. NOWHERE: in neither
 * place, or it is the sender who is not elsewhere.
 */
enum udp_clients_place udp_clients_route_from_elsewhere(struct udp_clients *clients, const struct public_key *from,
							const struct public_key *to, size_t len, uint64_t now_ns,
							struct udp_way **ret_way, struct relay_udp_header *ret);

/* Is a client elsewhere told that what it sent went nowhere? Ten times a second; counted as told. */
bool udp_clients_may_tell_gone(struct udp_clients *clients, const struct public_key *node_key, uint64_t now_ns);

/* Whom what is sent here reaches; bytes are borrowed. */
typedef void udp_clients_send(void *owner, const struct udp_way *to, const uint8_t *bytes, size_t len);
/*
 * A few times a second: looks at some of the clients, all within 2 s when it is called every 250 ms; forgets who was
 * silent, and sees who is busy.
 */
void udp_clients_tick(struct udp_clients *clients, uint64_t now_ns);
/* The map has changed: tells those that are no longer members, and forgets them. */
void udp_clients_recheck_members(struct udp_clients *clients, udp_clients_send *send);
/*
 * While it drains nobody new is bound. udp_clients_send_away() tells so many of those that are to go elsewhere; who
 * was told is served for 5 s yet.
 */
void udp_clients_set_draining(struct udp_clients *clients, bool is_draining);
void udp_clients_send_away(struct udp_clients *clients, uint32_t n, uint32_t retry_after_ms, uint64_t now_ns,
			   udp_clients_send *send);
/* Tells all that the relay stops. */
void udp_clients_say_restart(struct udp_clients *clients, uint32_t retry_after_ms, udp_clients_send *send);

struct udp_clients_counters udp_clients_counters(const struct udp_clients *clients);
/* Who carried most when all were last looked at; the busiest come first. */
const struct udp_clients_busiest *udp_clients_busiest(const struct udp_clients *clients);
void udp_clients_each(const struct udp_clients *clients,
		      void (*each)(void *owner, const struct udp_clients_client *client), void *owner);
