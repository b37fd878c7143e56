/*
 * Does a peer to which we send by relay get it? Only its answers tell, and not everything has one.
 *
 *            sent what wants an answer           0.4 s, and more was sent meanwhile
 *   ANSWERS ───────────────────────────► WAITING ───────────────────────────────────► DOUBTED
 *      ▲                                    │                                            │
 *      └──────────── anything of the peer's ┴────────────────────────────────────────────┘
 *
 * In DOUBTED there are deeds, each later and later:
 *   wake   the peer may have lost its way to its relay, and not know: control can tell it
 *   seek   it may be at another relay by now: these are asked
 *   turn   it is at another relay as well: what goes to it goes there, until that was in vain, too
 *   again  what should have begun a session may be lost: WireGuard may ask for one anew
 *
 * A peer that only receives is silent for up to 10 s (WireGuard's keep-alive): it is woken and sought for nothing,
 * which costs little. Pure; times are of one monotonic clock, in ns.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum peer_silence_deed {
	PEER_SILENCE_WAKE = 1 << 0,
	PEER_SILENCE_SEEK = 1 << 1,
	PEER_SILENCE_TURN = 1 << 2,
	PEER_SILENCE_AGAIN = 1 << 3,
};

struct peer_silence {
	uint64_t heard_ns;
	uint64_t unanswered_ns; /* first sent after that; 0: nothing */
	uint64_t sent_ns;	/* last */
	uint64_t handshake_ns;	/* when one was begun that is not answered; 0: none */
	uint64_t wake_ns, turn_ns, again_ns; /* when due next; 0: as soon as in doubt */
	uint32_t n_wakes, n_turns, n_again;
};

/* Something was sent that wants an answer: data, or the begin of a handshake. Earlier than what was told before: no news. */
void peer_silence_sent(struct peer_silence *silence, uint64_t at_ns, bool is_handshake);
void peer_silence_heard(struct peer_silence *silence, uint64_t at_ns);
bool peer_silence_is_doubted(const struct peer_silence *silence, uint64_t now_ns);
/* What is due now, as bits of enum peer_silence_deed. TURN is due until peer_silence_turned(). */
uint32_t peer_silence_due(struct peer_silence *silence, uint64_t now_ns);
/* What goes to the peer goes elsewhere now. */
void peer_silence_turned(struct peer_silence *silence, uint64_t now_ns);
