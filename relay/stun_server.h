/*
 * Answers to STUN Binding requests, without the sockets (relay/udp_server.h has them).
 *
 *   question, on socket [address][port] ──► answered in place, from the same socket or, on request, another
 *
 * An answer leaves from the address that was asked and is never larger than the question: what does not
 * fit is left out (first OTHER-ADDRESS and RESPONSE-ORIGIN); if not even the mapped address fits, nothing
 * is sent and too_small is counted. Each source prefix (/24, /56) has a rate.
 *
 * Of RFC 5780, so that a client can find what the NAT before it does, it speaks what it has sockets for:
 * with a second port a change of the port and OTHER-ADDRESS (of the same address, when there is but one);
 * with a second address of the family besides (no wildcards) also a change of the address. What it cannot
 * do is answered with 420, as the RFC wants. RESPONSE-PORT it always does: the answer goes to another port
 * of the asker's own address, so nobody is sent anything that could not be sent there anyway, by a forged source.
 *
 * No I/O and no clock. One thread. sodium_init() must have been called.
 */
#pragma once

#include "common/endpoint.h"
#include "common/source_limit.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STUN_SERVER_MAX_ADDRESSES 8
#define STUN_SERVER_MAX_PORTS	  2

struct stun_server_counters {
	uint64_t received, answered;
	uint64_t garbage;	/* not STUN, malformed, wrong fingerprint */
	uint64_t not_a_request; /* STUN, but an answer or another method */
	uint64_t too_small;
	uint64_t rate_limited;
	uint64_t unknown_attribute; /* answered with 420; counted in answered, too */
	uint64_t send_failed;
};

struct stun_server {
	uint32_t n_addresses, n_ports;
	struct endpoint local[STUN_SERVER_MAX_ADDRESSES][STUN_SERVER_MAX_PORTS]; /* as bound; set by the caller */
	struct stun_server_counters counters; /* of answered and send_failed only the caller knows */
	struct source_limit limit;
};

struct stun_server_question {
	uint32_t address, port; /* indices of the socket it came to */
	struct endpoint source, asked;
	uint64_t now_ms;
};

struct stun_server_answer {
	size_t len;
	uint32_t address, port; /* indices of the socket it leaves by */
	bool is_elsewhere;	/* not the socket that was asked */
	struct endpoint to;
};

/* rate_per_s of one source prefix; 0: 100. burst 0: 200. The caller adds the addresses. */
void stun_server_init(struct stun_server *server, uint32_t rate_per_s, uint32_t burst);
/* In place of the question. False: nothing is to be sent, and that is counted. */
bool stun_server_answer(struct stun_server *server, const struct stun_server_question *question, uint8_t *bytes,
			size_t len, struct stun_server_answer *ret);
