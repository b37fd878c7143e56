#include "relay/diglett/handshake_places.h"

#include <stddef.h>
#include <string.h>

#define V4_PREFIX_LEN 15 /* bytes of the v4-mapped form: /24 */
#define V6_PREFIX_LEN 7	 /* /56 */
#define V6_WIDE_LEN   6	 /* /48, which one holder is given, and has 256 sources in */

static bool has_same_prefix(const struct endpoint *a, const struct endpoint *b, size_t v6_len)
{
	if (endpoint_is_v4(a) != endpoint_is_v4(b))
		return false;
	return memcmp(a->ip, b->ip, endpoint_is_v4(a) ? V4_PREFIX_LEN : v6_len) == 0;
}

static bool is_of_one_source(const struct endpoint *a, const struct endpoint *b)
{
	return has_same_prefix(a, b, V6_PREFIX_LEN);
}

static struct handshake_place *find(struct handshake_places *places, const void *owner)
{
	for (int i = 0; i < HANDSHAKE_PLACES; i++)
		if (places->places[i].owner == owner)
			return &places->places[i];
	return NULL;
}

static uint32_t count_of(const struct handshake_places *places, const struct endpoint *source, size_t v6_len)
{
	uint32_t n = 0;

	for (int i = 0; i < HANDSHAKE_PLACES; i++)
		n += places->places[i].owner && has_same_prefix(&places->places[i].source, source, v6_len) ? 1 : 0;
	return n;
}

static uint32_t count_of_source(const struct handshake_places *places, const struct endpoint *source)
{
	return count_of(places, source, V6_PREFIX_LEN);
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

/* Who has most by the wide prefix, in this by the narrow one; of those that have equally many, that whose oldest is the
 * oldest. */
static struct handshake_place *find_oldest_of_most(struct handshake_places *places)
{
	struct handshake_place *found = NULL;
	uint32_t most = 0; /* wide ones before narrow ones */

	for (int i = 0; i < HANDSHAKE_PLACES; i++) {
		struct handshake_place *place = &places->places[i];
		const uint32_t n = count_of(places, &place->source, V6_WIDE_LEN) * (HANDSHAKE_PLACES + 1) +
				   count_of_source(places, &place->source);
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
