/* Who may be in a handshake: a place for everybody who comes, taken from who has most. */
#include "relay/diglett/handshake_places.h"

#include <assert.h>
#include <stddef.h>

static struct handshake_places places;
static char owners[HANDSHAKE_PLACES + 1];

static struct endpoint source_of(uint32_t network, uint32_t host)
{
	return endpoint_from_v4(0xc6000000u + (network << 8) + host, 1000);
}

static void *take(uint32_t network, uint32_t host, void *owner)
{
	const struct endpoint source = source_of(network, host);

	return handshake_places_take(&places, &source, owner);
}

static void test_a_source_that_has_its_part_drives_out_its_own_oldest(void)
{
	places = (struct handshake_places){ 0 };
	assert(!take(1, 1, &owners[0]));
	for (uint32_t i = 0; i < HANDSHAKE_OF_SOURCE; i++)
		assert(!take(2, i, &owners[1 + i])); /* other addresses of the same /24 */
	assert(take(2, 77, &owners[9]) == &owners[1]);
	assert(take(2, 78, &owners[1]) == &owners[2]);
	assert(!take(1, 2, &owners[2]));
}

static void test_when_all_are_taken_the_oldest_of_who_has_most_leaves(void)
{
	places = (struct handshake_places){ 0 };
	assert(!take(1, 1, &owners[0])); /* the oldest of all, and alone */
	for (uint32_t i = 1; i < HANDSHAKE_PLACES; i++)
		assert(!take(2 + i / HANDSHAKE_OF_SOURCE, i, &owners[i]));
	assert(take(100, 1, &owners[HANDSHAKE_PLACES]) == &owners[HANDSHAKE_OF_SOURCE]); /* the first source with 8 */
}

static void test_when_all_have_one_the_oldest_leaves(void)
{
	places = (struct handshake_places){ 0 };
	for (uint32_t i = 0; i < HANDSHAKE_PLACES; i++)
		assert(!take(i, 1, &owners[i]));
	assert(take(100, 1, &owners[HANDSHAKE_PLACES]) == &owners[0]);
	assert(take(101, 1, &owners[0]) == &owners[1]);
}

static void test_a_place_that_is_given_back_is_free_and_giving_back_none_is_nothing(void)
{
	places = (struct handshake_places){ 0 };
	for (uint32_t i = 0; i < HANDSHAKE_PLACES; i++)
		assert(!take(i, 1, &owners[i]));
	handshake_places_leave(&places, &owners[7]);
	handshake_places_leave(&places, &owners[7]);
	assert(!take(100, 1, &owners[7]));
}

static void test_an_ipv6_source_is_its_56_bits_and_no_ipv4_one(void)
{
	struct endpoint source = { .ip = { 0x20, 1, 0xd, 0xb8, 0, 1, 2 }, .port = 1 };

	places = (struct handshake_places){ 0 };
	for (uint8_t i = 0; i < HANDSHAKE_OF_SOURCE; i++) {
		source.ip[7] = source.ip[15] = i;
		assert(!handshake_places_take(&places, &source, &owners[i]));
	}
	source.ip[6]++;
	assert(!handshake_places_take(&places, &source, &owners[20]));
	source.ip[6]--;
	assert(handshake_places_take(&places, &source, &owners[21]) == &owners[0]);
	source = (struct endpoint){ .ip = { [15] = 1 }, .port = 1 }; /* ::1 begins as IPv4 addresses do */
	for (uint32_t i = 0; i < HANDSHAKE_OF_SOURCE; i++)
		assert(!take(0, i, &owners[30 + i]));
	assert(!handshake_places_take(&places, &source, &owners[22]));
}

static void test_the_sources_of_one_48_drive_out_each_other(void)
{
	struct endpoint source = { .ip = { 0x20, 1, 0xd, 0xb8, 0, 1 }, .port = 1 };

	places = (struct handshake_places){ 0 };
	assert(!take(1, 1, &owners[0])); /* the oldest of all; it waits */
	for (uint8_t i = 1; i < HANDSHAKE_PLACES; i++) {
		source.ip[6] = i; /* each a /56 of its own */
		assert(!handshake_places_take(&places, &source, &owners[i]));
	}
	source.ip[6] = 200;
	assert(handshake_places_take(&places, &source, &owners[HANDSHAKE_PLACES]) == &owners[1]);
	assert(take(2, 1, &owners[1]) == &owners[2]); /* and lose theirs to who comes from elsewhere */
	source.ip[6] = 50;
	assert(handshake_places_take(&places, &source, &owners[2]) == &owners[3]);
	assert(take(3, 1, &owners[3]) == &owners[50]); /* in it that which has most */
}

int main(void)
{
	test_a_source_that_has_its_part_drives_out_its_own_oldest();
	test_when_all_are_taken_the_oldest_of_who_has_most_leaves();
	test_when_all_have_one_the_oldest_leaves();
	test_a_place_that_is_given_back_is_free_and_giving_back_none_is_nothing();
	test_an_ipv6_source_is_its_56_bits_and_no_ipv4_one();
	test_the_sources_of_one_48_drive_out_each_other();
	return 0;
}
