/*
 * Does a peer to which we send by relay get it? Only its answers tell, and not everything has one.
 *
 *            sent what wants an answer           0.4 s, and more was sent meanwhile
 *   ANSWERS ───────────────────────────► WAITING ───────────────────────────────────► DOUBTED
 *      ▲                                    │                                           │   │ longer than
 *      │ anything of the peer's, or nothing │                                           │   │ it usually is
 *      │ more is sent for a while           │                                           │   ▼
 *      └────────────────────────────────────┴───────────────────────────────────────────┴─ STRANGE
 *
 * In DOUBTED:
 *   knock  the peer is asked for an answer, ten times a second until there is one: who only receives gives none unasked
 *   wake   the peer may have lost its way to its relay, and not know: control can tell it
 *   again  what should have begun a session may be lost: WireGuard may ask for one anew
 * In STRANGE, too:
 *   seek   it may be at another relay by now: these are opened and asked
 *   ask    the same, later: those that are there are asked, no others are opened
 *   turn   it is at another relay as well: what goes to it goes there, until that was in vain, too
 *
 * A peer that only receives is silent for up to 10 s (WireGuard's keep-alive), or until it is knocked at. So the longest silence that ended by
 * itself is remembered, and until some were seen a peer is taken for one of these. Wakes come later and later
 * as long as packets flow, whatever is heard meanwhile; after a pause the first may come at once.
 * Pure; times are of one monotonic clock, in ns.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum peer_silence_deed {
	PEER_SILENCE_WAKE = 1 << 0,
	PEER_SILENCE_AGAIN = 1 << 1,
	PEER_SILENCE_SEEK = 1 << 2,
	PEER_SILENCE_ASK = 1 << 3,
	PEER_SILENCE_TURN = 1 << 4,
	PEER_SILENCE_KNOCK = 1 << 5,
};

struct peer_silence {
	uint64_t heard_ns;
	uint64_t unanswered_ns; /* first sent after that; 0: nothing */
	uint64_t sent_ns;	/* last */
	uint64_t handshake_ns;	/* when one was begun that is not answered; 0: none */
	uint64_t longest_ns, longest_at_ns; /* silence that ended by itself, lately; and when */
	uint32_t n_answers;
	uint64_t woken_ns; /* the last wake; these two outlast the silence */
	uint32_t n_wakes;
	bool may_wake; /* sent after a pause: the next wake need not wait */
	uint64_t knock_ns, ask_ns, turn_ns, again_ns; /* when due next; 0: as soon as in doubt */
	uint64_t turned_ns;		    /* first in this silence; 0: not */
	uint32_t n_asks, n_turns, n_again;
};

/* Something was sent that wants an answer: data, or the begin of a handshake. Earlier than what was told before: no news. */
void peer_silence_sent(struct peer_silence *silence, uint64_t at_ns, bool is_handshake);
/* True: it was turned for nothing, the peer only took its time. */
bool peer_silence_heard(struct peer_silence *silence, uint64_t at_ns);
/* What was sent needs no answer any more: it went another way, or WireGuard gave up. */
void peer_silence_forget(struct peer_silence *silence);
/* What is sent goes by another relay from now on, by no deed of ours: what went before was that one's to lose. */
void peer_silence_moved(struct peer_silence *silence, uint64_t now_ns);
bool peer_silence_is_doubted(const struct peer_silence *silence, uint64_t now_ns);
/* … and silent for longer than it usually is. */
bool peer_silence_is_strange(const struct peer_silence *silence, uint64_t now_ns);
/* … and since so short a time that others than the relay that should have it are tried. */
bool peer_silence_is_sought(const struct peer_silence *silence, uint64_t now_ns);
/*
 * What is due now, as bits of enum peer_silence_deed; nothing as long as the relay that we send by, last heard at relay_ns,
 * may be what is silent. TURN is due until peer_silence_turned().
 */
uint32_t peer_silence_due(struct peer_silence *silence, uint64_t now_ns, uint64_t relay_ns);
/* What goes to the peer goes elsewhere now. */
void peer_silence_turned(struct peer_silence *silence, uint64_t now_ns);
