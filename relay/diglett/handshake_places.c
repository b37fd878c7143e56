#include "relay/diglett/handshake_places.h"

#include <stddef.h>
#include <string.h>

#define V4_PREFIX_LEN 15 /* bytes of the v4-mapped form: /24 */
#define V6_PREFIX_LEN 7	 /* /56 */

static bool is_of_one_source(const struct endpoint *a, const struct endpoint *b)
{
	if (endpoint_is_v4(a) != endpoint_is_v4(b))
		return false;
	return memcmp(a->ip, b->ip, endpoint_is_v4(a) ? V4_PREFIX_LEN : V6_PREFIX_LEN) == 0;
}

static struct handshake_place *find(struct handshake_places *places, const void *owner)
{
	for (int i = 0; i < HANDSHAKE_PLACES; i++)
		if (places->places[i].owner == owner)
			return &places->places[i];
	return NULL;
}

static uint32_t count_of_source(const struct handshake_places *places, const struct endpoint *source)
{
	uint32_t n = 0;

	for (int i = 0; i < HANDSHAKE_PLACES; i++)
		n += places->places[i].owner && is_of_one_source(&places->places[i].source, source) ? 1 : 0;
	return n;
}

static struct handshake_place *find_oldest_of(struct handshake_places *places, const struct endpoint *source)
{
	struct handshake_place *oldest = NULL;

	for (int i = 0; i < HANDSHAKE_PLACES; i++) {
		struct handshake_place *place = &places->places[i];
		if (place->owner && is_of_one_source(&place->source, source) && (!oldest || place->number < oldest->number))
			oldest = place;
	}
	return oldest;
}

/* Of those that have equally many, that whose oldest is the oldest. */
static struct handshake_place *find_oldest_of_most(struct handshake_places *places)
{
	struct handshake_place *found = NULL;
	uint32_t most = 0;

	for (int i = 0; i < HANDSHAKE_PLACES; i++) {
		struct handshake_place *place = &places->places[i];
		const uint32_t n = count_of_source(places, &place->source);
		if (n > most || (n == most && place->number < found->number)) {
			most = n;
			found = place;
		}
	}
	return found;
}

void *handshake_places_take(struct handshake_places *places, const struct endpoint *source, void *owner)
{
	struct handshake_place *place;

	if (count_of_source(places, source) >= HANDSHAKE_OF_SOURCE)
		place = find_oldest_of(places, source);
	else if (!(place = find(places, NULL)))
		place = find_oldest_of_most(places);
	void *const before = place->owner;
	*place = (struct handshake_place){ .owner = owner, .source = *source, .number = ++places->last_number };
	return before;
}

void handshake_places_leave(struct handshake_places *places, const void *owner)
{
	struct handshake_place *place = find(places, owner);

	if (place)
		place->owner = NULL;
}
