#include "relay/frontdoor/door_places.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#define PASS_OVER_MS	 1000
#define MAX_PASS_OVER_MS 10000
#define SAY_AGAIN_MS	 10000

/* ---- one place ---- */

struct door_place *door_place_hold(struct door_place *place)
{
	atomic_fetch_add_explicit(&place->n_holders, 1, memory_order_relaxed);
	return place;
}

void door_place_let_go(struct door_place *place)
{
	if (place && atomic_fetch_sub_explicit(&place->n_holders, 1, memory_order_acq_rel) == 1)
		free(place);
}

static uint64_t get(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

/* One thread writes: others may read half of what belongs together, and no more. */
static void set(_Atomic uint64_t *value, uint64_t to)
{
	atomic_store_explicit(value, to, memory_order_relaxed);
}

bool door_place_is_passed_over(const struct door_place *place, uint64_t now_ms)
{
	return get(&place->passed_over_until_ms) > now_ms;
}

static bool is_tried(const struct door_place *place, struct door_place *const *tried, uint32_t n_tried)
{
	for (uint32_t i = 0; i < n_tried; i++)
		if (tried[i] == place)
			return true;
	return false;
}

static bool is_better(const struct door_place *place, const struct door_place *than, uint64_t now_ms)
{
	const bool is_over = door_place_is_passed_over(place, now_ms);
	const uint64_t until = get(&place->passed_over_until_ms), than_until = get(&than->passed_over_until_ms);
	const uint64_t n = get(&place->visitors_now), than_n = get(&than->visitors_now);

	if (is_over != door_place_is_passed_over(than, now_ms))
		return !is_over;
	if (is_over && until != than_until)
		return until < than_until;
	if (n != than_n)
		return n < than_n;
	return place->turn < than->turn;
}

struct door_place *door_place_choose(struct door_place *const *places, uint32_t n, struct door_place *const *tried,
				     uint32_t n_tried, uint64_t now_ms)
{
	struct door_place *best = NULL;

	for (uint32_t i = 0; i < n; i++)
		if (!is_tried(places[i], tried, n_tried) && (!best || is_better(places[i], best, now_ms)))
			best = places[i];
	return best;
}

static void pass_over(struct door_place *place, uint64_t now_ms)
{
	const uint32_t doublings = place->n_failed - 1 < 4 ? place->n_failed - 1 : 4;
	const uint64_t for_ms = (uint64_t)PASS_OVER_MS << doublings;

	set(&place->passed_over_until_ms, now_ms + (for_ms < MAX_PASS_OVER_MS ? for_ms : MAX_PASS_OVER_MS));
}

void door_place_enter(struct door_place *place, uint64_t turn, uint64_t now_ms)
{
	place->turn = turn;
	set(&place->visitors, get(&place->visitors) + 1);
	set(&place->visitors_now, get(&place->visitors_now) + 1);
	if (place->n_failed == 0 || door_place_is_passed_over(place, now_ms))
		return;
	place->is_on_trial = true; /* this one tries it for all */
	pass_over(place, now_ms);
}

void door_place_enter_again(struct door_place *place)
{
	set(&place->visitors_now, get(&place->visitors_now) + 1);
}

void door_place_leave(struct door_place *place)
{
	set(&place->visitors_now, get(&place->visitors_now) - 1);
}

void door_place_answered(struct door_place *place)
{
	if (place->n_failed == 0)
		return;
	place->n_failed = 0;
	place->is_on_trial = false;
	set(&place->passed_over_until_ms, 0);
}

void door_place_failed(struct door_place *place, uint64_t now_ms)
{
	set(&place->failed, get(&place->failed) + 1);
	if (door_place_is_passed_over(place, now_ms) && !place->is_on_trial)
		return; /* who came before that was known tells nothing new */
	place->is_on_trial = false;
	place->n_failed++;
	pass_over(place, now_ms);
}

bool door_place_is_to_say_failed(struct door_place *place, uint64_t now_ms)
{
	if (place->is_said_failed || (place->said_failed_ms != 0 && now_ms < place->said_failed_ms + SAY_AGAIN_MS))
		return false;
	place->is_said_failed = true;
	place->said_failed_ms = now_ms;
	return true;
}

bool door_place_is_to_say_answered(struct door_place *place)
{
	const bool was_said = place->is_said_failed;

	place->is_said_failed = false;
	return was_said;
}

/* ---- the list ---- */

static bool is_it(const struct door_place *place, const char *host, const char *label, const struct endpoint *target)
{
	return endpoint_equal(&place->target, target) && strcmp(place->label, label) == 0 && strcmp(place->host, host) == 0;
}

/* FNV-1a. Hosts are granted by an admin: nobody chooses them so that they collide. */
static uint32_t chain_of(const char *host, const char *label)
{
	uint32_t hash = 2166136261u;

	for (const char *at = host; *at != '\0'; at++)
		hash = (hash ^ (uint8_t)*at) * 16777619u;
	for (const char *at = label; *at != '\0'; at++)
		hash = (hash ^ (uint8_t)*at) * 16777619u;
	return hash % DOOR_PLACE_CHAINS;
}

static struct door_place *new_place(const char *host, const char *label, const struct endpoint *target)
{
	struct door_place *place = calloc(1, sizeof(*place));

	if (!place)
		abort();
	place->target = *target;
	snprintf(place->host, sizeof(place->host), "%s", host);
	snprintf(place->label, sizeof(place->label), "%s", label);
	place->n_holders = 1;
	return place;
}

struct door_place *door_places_get(struct door_places *places, const char *host, const char *label,
				   const struct endpoint *target, bool is_online)
{
	struct door_place **chain = &places->chains[chain_of(host, label)], *place = *chain;

	while (place && !is_it(place, host, label, target))
		place = place->next;
	if (!place) {
		place = new_place(host, label, target);
		place->next = *chain;
		*chain = place;
	}
	place->is_wanted = true;
	place->is_online = is_online;
	return place;
}

static void sweep_chain(struct door_place **at)
{
	while (*at) {
		struct door_place *place = *at;
		if (place->is_wanted) {
			place->is_wanted = false;
			at = &place->next;
			continue;
		}
		*at = place->next;
		place->next = NULL;
		door_place_let_go(place);
	}
}

void door_places_sweep(struct door_places *places)
{
	for (uint32_t i = 0; i < DOOR_PLACE_CHAINS; i++)
		sweep_chain(&places->chains[i]);
}

void door_places_deinit(struct door_places *places)
{
	door_places_sweep(places);
	door_places_sweep(places);
}
