/*
 * By which way is one relay used: over UDP, or over TLS?
 *
 *               600 ms without a slot; a slot was lost; 3 of the last 8 pings were; one into silence is late
 *   UDP alone ────────────────────────────────────────────────────────────────────────────► UDP and TLS
 *      ▲                                                                                         │
 *      └──────────────── UDP has been good for 8 s; packets go by UDP again after 3 ◄────────────┘
 *
 * Packets go by UDP when there is a slot, unless UDP loses too much and TLS is there. Both receive as long as
 * they are open. One late ping moves packets for seconds only, and not again for six hours unless the second is late, too, and
 * opens TLS no more than after 1, 8, 64 min and every two hours (the second, being late, does at once);
 * neither that nor a lost slot (the relay restarted, maybe) counts as left. A UDP that was left before is believed later each time, as where something on the way drops a share
 * of all UDP for good: after 24 s, 3 min, 26 min, two hours, of the last 32 pings less than a fifth lost all the time (one of
 * eight, until there are 32); and it is
 * left by a quarter of these, not by three of eight, which chance alone makes. So it is left once an hour at most, however
 * much is lost. Six hours without a doubt, or another network, and it is as before. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RELAY_CHOICE_PATIENCE_MS 600  /* how long UDP alone is tried */
#define RELAY_CHOICE_LOSSY	 3    /* of the last 8 pings */
#define RELAY_CHOICE_SILENT	 2    /* pings since anything was heard: the second is sent when the first is late */
#define RELAY_CHOICE_LOSSY_PERCENT 25 /* of the last 32, when it was left before … */
#define RELAY_CHOICE_GOOD_PERCENT  20 /* … and what it must stay below to be good */
#define RELAY_CHOICE_GOOD_MS	 3000 /* a UDP that lost was good for so long: it is used again … */
#define RELAY_CHOICE_CLOSE_MS	 8000 /* … and TLS closed */
#define RELAY_CHOICE_NEW_MS	 32000 /* so long after that, six of eight must be lost */
#define RELAY_CHOICE_MOST_MS	 7200000 /* eight times as long each time, up to that */
#define RELAY_CHOICE_LATE_MS	 60000 /* TLS was opened for one late ping: not for another until then, eight times as long each time */
#define RELAY_CHOICE_FORGET_MS	 21600000 /* so long without a doubt, and it is as at first */

/* How things are. */
struct relay_choice_view {
	uint64_t now_ms;
	bool is_bound;	 /* over UDP */
	bool is_proven;	 /* and hardly anything was lost */
	uint32_t missing; /* of the last 8 pings */
	uint32_t loss;	   /* per cent of the last 32 pings … */
	bool knows_loss;   /* … when there are so many */
	uint32_t n_silent; /* pings since anything was heard */
	bool is_blocked; /* other relays are reached over TLS only: do not wait for UDP */
};

/* Why UDP is doubted; what is further down is worse. */
enum relay_choice_doubt {
	RELAY_CHOICE_TRUSTED,
	RELAY_CHOICE_LATE,    /* for one ping */
	RELAY_CHOICE_LOST,    /* for its slot */
	RELAY_CHOICE_SILENCE, /* the second ping is late, too: counted, unless the slot turns out to be lost */
	RELAY_CHOICE_LEFT,    /* counted */
};

struct relay_choice {
	bool wants_tls, doubts_udp;
	enum relay_choice_doubt doubt;
	bool was_bound;
	uint32_t n_left;     /* how often UDP was left, since all was well for six hours */
	uint64_t trusted_ms; /* since when UDP is not doubted */
	uint64_t without_ms; /* since when there is no slot; 0: there is one */
	uint64_t good_ms;    /* since when UDP is proven; 0: it is not */
	uint64_t late_ms;    /* when one late ping moved packets; 0: none did */
	uint64_t opened_ms;  /* when TLS was opened for one late ping; 0: not yet */
	uint32_t n_opened;   /* and how often, each before six hours were over */
	uint64_t deadline_ms; /* look again then; 0: only when something happens */
};

/* Its pings are worth a second each: TLS is beside it, for seconds; or, when it is doubted for long, packets flow. */
bool relay_choice_is_watching(const struct relay_choice *choice, bool is_used);
/* The network is another one: what was learnt of the last is no reason to wait long. */
void relay_choice_forgive(struct relay_choice *choice);
void relay_choice_init(struct relay_choice *choice, uint64_t now_ms);
void relay_choice_step(struct relay_choice *choice, const struct relay_choice_view *view);
