/*
 * Which relays are connected to only to learn how far they are, and when? Those that nothing has measured (they do not
 * answer STUN), some at a time, going on where the last time stopped, so that those behind dead ones have their turn.
 *
 *   home is reached by TLS alone ── not for 5, 10, 20 min … 24 h since the last time ──► the next 15
 *   somebody asks ─────────────────────────────────────────────────────────────────────► the next 15
 *   home is reached over UDP, or the network is another one ──► 5 min again
 *
 * What was measured is forgotten within minutes, and where UDP is blocked connections are often cut: an idle node stays
 * quiet all the same. Pure.
 */
#pragma once

#include "actors/relay_manager/home_fsm.h"

#define RELAY_SURVEY_MOST    (HOME_MAX_HELD - 1)
#define RELAY_SURVEY_MIN_MS  HOME_KEEP_MS
#define RELAY_SURVEY_MAX_MS  86400000

struct relay_survey {
	uint64_t tried_ms; /* 0: never */
	uint64_t pause_ms; /* until nobody needs to ask; 0: as at first */
	uint32_t next;	   /* index of the relay to go on with */
};

/* Home was reached by TLS alone. True: do it now; the next time is later. */
bool relay_survey_is_due(struct relay_survey *survey, uint64_t now_ms);
/* There is no reason to be slow any more. */
void relay_survey_forgive(struct relay_survey *survey);
/* Writes the ids, at most RELAY_SURVEY_MOST; returns how many. */
uint32_t relay_survey_begin(struct relay_survey *survey, const struct home_fsm *home, uint64_t now_ms, uint32_t *ret);
