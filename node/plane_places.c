#include "node/plane_places.h"

#include <stddef.h>

/* For the relay's word that a peer is not there: twice its round trip, and what a busy machine takes. */
#define MIN_PATIENCE_NS 50000000ull
#define MAX_PATIENCE_NS 300000000ull

struct plane_place *plane_places_find(const struct plane_place places[PLANE_PLACES], uint32_t relay_id)
{
	for (uint32_t i = 0; i < PLANE_PLACES; i++)
		if (places[i].relay_id == relay_id)
			return (struct plane_place *)&places[i];
	return NULL;
}

static uint64_t last_news_ns(const struct plane_place *place)
{
	uint64_t ns = place->here_ns > place->absent_ns ? place->here_ns : place->absent_ns;

	if (place->relay_id == 0)
		return 0;
	ns = ns > place->sent_ns ? ns : place->sent_ns;
	return ns > place->asked_ns ? ns : place->asked_ns;
}

/* Free ones first, then those where the peer is not; its home, and where it is, last of all. */
static int worth(const struct plane_place *place, uint32_t home_relay)
{
	if (place->relay_id == 0)
		return 0;
	if (place->relay_id == home_relay)
		return 3;
	return place->here_ns > place->absent_ns ? 2 : 1;
}

/* Of equal worth, the one of which nothing was heard for longest, nor was it tried, gives way. */
const struct plane_place *plane_places_room(const struct plane_place places[PLANE_PLACES], uint32_t home_relay,
					    uint32_t relay_id)
{
	const struct plane_place *place = plane_places_find(places, relay_id);

	if (place)
		return place;
	place = &places[0];
	for (uint32_t i = 1; i < PLANE_PLACES; i++) {
		const struct plane_place *other = &places[i];
		const int more = worth(other, home_relay) - worth(place, home_relay);
		if (more < 0 || (more == 0 && last_news_ns(other) < last_news_ns(place)))
			place = other;
	}
	return place;
}

struct plane_place *plane_places_take(struct plane_place places[PLANE_PLACES], uint32_t home_relay, uint32_t relay_id)
{
	struct plane_place *place = &places[plane_places_room(places, home_relay, relay_id) - places];

	if (place->relay_id != relay_id)
		*place = (struct plane_place){ .relay_id = relay_id };
	return place;
}

bool plane_place_is_absent(const struct plane_place *place)
{
	return place && place->absent_ns > place->here_ns;
}

bool plane_place_is_here(const struct plane_place *place)
{
	return place && place->here_ns > place->absent_ns;
}

bool plane_place_is_deaf(const struct plane_place *place, uint64_t now_ns)
{
	return place && place->deaf_ns != 0 && now_ns - place->deaf_ns < PLANE_DEAF_NS;
}

bool plane_place_is_tried(const struct plane_place *place, uint64_t now_ns)
{
	return place && place->tried_ns > place->here_ns && now_ns < place->tried_until_ns;
}

bool plane_place_was_tried(const struct plane_place *place, uint64_t now_ns, bool is_sought)
{
	if (!place)
		return false;
	if (place->sent_ns != 0 && now_ns - place->sent_ns < PLANE_SOUGHT_NS)
		return true;
	return !is_sought && (plane_place_is_tried(place, now_ns) ||
			      (place->absent_ns != 0 && now_ns - place->absent_ns < PLANE_RETRY_NS));
}

void plane_place_try(struct plane_place *place, uint64_t now_ns, uint32_t rtt_us, bool is_sought)
{
	const uint64_t patience_ns = rtt_us == 0 ? MAX_PATIENCE_NS : 2000ull * rtt_us + MIN_PATIENCE_NS;
	const bool is_heard = plane_place_is_here(place) && now_ns - place->here_ns < PLANE_FRESH_NS;

	place->sent_ns = now_ns;
	/* That this one is not answered may be for want of answers: taken for ready, it would have all that is sent. */
	if (is_sought && plane_place_is_absent(place) && now_ns - place->absent_ns < PLANE_STANDS_NS)
		return;
	/* What is heard from is not in doubt, and what the relay has not yet answered is waited for no longer. */
	if (!is_heard && !(plane_place_is_tried(place, now_ns) && place->absent_ns == 0)) {
		place->tried_ns = now_ns;
		place->tried_until_ns = now_ns + (patience_ns < MAX_PATIENCE_NS ? patience_ns : MAX_PATIENCE_NS);
	}
	place->absent_ns = 0;
}

bool plane_is_answer_elsewhere(uint32_t sent_by, uint32_t answered_by, uint32_t our_home, uint32_t its_home)
{
	return answered_by != sent_by && (answered_by != our_home || answered_by == its_home);
}

bool plane_rounds_take(struct plane_rounds *rounds, uint64_t sought_ns, uint64_t now_ns)
{
	if (now_ns - rounds->began_ns >= PLANE_ROUND_NS)
		*rounds = (struct plane_rounds){ .began_ns = now_ns,
						 .was_full = rounds->is_full,
						 .first_ns = rounds->left_ns + PLANE_ROUND_NS };
	if (now_ns - sought_ns < PLANE_SEEK_PAUSE_NS)
		return false;
	if (rounds->n < PLANE_ROUND_PEERS && (!rounds->was_full || sought_ns <= rounds->first_ns)) {
		rounds->n++;
		return true;
	}
	if (!rounds->is_full || sought_ns < rounds->left_ns)
		rounds->left_ns = sought_ns;
	rounds->is_full = true;
	return false;
}
