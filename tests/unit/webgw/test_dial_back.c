/* A secret is told once, taken once, and worth nothing when its visitor waits no longer. */
#include "relay/webgw/dial_back.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static struct dial_back *new_table(void)
{
	struct dial_back *table = malloc(sizeof(*table));

	assert(table);
	dial_back_init(table);
	return table;
}

static void test_a_secret_finds_its_visitor_once(void)
{
	struct dial_back *table = new_table();
	int alice, bob;
	uint8_t secrets[2][DIAL_BACK_SECRET];
	void *found = NULL;

	const uint64_t ticket = dial_back_add(table, &alice, 5000, secrets[0]);
	assert(ticket != 0 && dial_back_add(table, &bob, 5000, secrets[1]) != ticket);
	assert(memcmp(secrets[0], secrets[1], DIAL_BACK_SECRET) != 0 && dial_back_find(table, ticket) == &alice);
	assert(dial_back_take(table, secrets[0], 100, &found) == 0 && found == &alice);
	assert(!dial_back_find(table, ticket));
	assert(dial_back_take(table, secrets[0], 100, &found) == DIAL_BACK_LATE); /* used twice */
	assert(dial_back_take(table, secrets[1], 4999, &found) == 0 && found == &bob && table->n == 0);
	free(table);
}

static void test_a_secret_lives_until_its_visitor_is_late(void)
{
	struct dial_back *table = new_table();
	int visitor;
	uint8_t secret[DIAL_BACK_SECRET];
	void *found = NULL;

	const uint64_t ticket = dial_back_add(table, &visitor, 5000, secret);
	assert(dial_back_take(table, secret, 5000, &found) == DIAL_BACK_LATE && !found);
	assert(dial_back_find(table, ticket) == &visitor); /* its owner removes it */
	dial_back_remove(table, ticket);
	dial_back_remove(table, ticket);
	assert(table->n == 0 && dial_back_take(table, secret, 1, &found) == DIAL_BACK_LATE);
	free(table);
}

static void test_a_guess_is_told_from_who_is_late(void)
{
	struct dial_back *table = new_table();
	int visitor;
	uint8_t secret[DIAL_BACK_SECRET], guess[DIAL_BACK_SECRET] = { 0 };
	void *found = NULL;

	assert(dial_back_add(table, &visitor, 5000, secret) != 0);
	assert(dial_back_take(table, guess, 0, &found) == DIAL_BACK_UNKNOWN);
	for (int i = 0; i < DIAL_BACK_SECRET; i++) { /* each byte counts */
		memcpy(guess, secret, sizeof(guess));
		guess[i] ^= 1;
		assert(dial_back_take(table, guess, 0, &found) == DIAL_BACK_UNKNOWN);
	}
	assert(dial_back_take(table, secret, 0, &found) == 0);
	free(table);
}

/* Else whoever sends many visitors makes an agent look like one who guesses, and it is sent away. */
static void test_a_late_secret_is_known_however_many_came_meanwhile(void)
{
	struct dial_back *table = new_table();
	int visitor;
	uint8_t late[DIAL_BACK_SECRET], other[DIAL_BACK_SECRET];
	void *found = NULL;

	dial_back_remove(table, dial_back_add(table, &visitor, 5000, late));
	for (int i = 0; i < 200000; i++)
		dial_back_remove(table, dial_back_add(table, &visitor, 5000, other));
	assert(dial_back_take(table, late, 0, &found) == DIAL_BACK_LATE && !found);
	for (int i = 0; i < DIAL_BACK_SECRET; i++) { /* and nothing that resembles it */
		memcpy(other, late, sizeof(other));
		other[i] ^= 0x80;
		assert(dial_back_take(table, other, 0, &found) == DIAL_BACK_UNKNOWN);
	}
	free(table);
}

/* What one node has told is a guess at another, or after a restart. */
static void test_a_secret_is_of_its_table_alone(void)
{
	struct dial_back *table = new_table(), *other = new_table();
	int visitor;
	uint8_t secret[DIAL_BACK_SECRET];
	void *found = NULL;

	assert(dial_back_add(table, &visitor, 5000, secret) != 0);
	assert(dial_back_take(other, secret, 0, &found) == DIAL_BACK_UNKNOWN);
	free(table);
	free(other);
}

/* A failed notification of the original left its secret for ever. */
static void test_so_many_wait_at_most_and_places_come_back(void)
{
	struct dial_back *table = new_table();
	static uint64_t tickets[DIAL_BACK_MAX];
	int visitor;
	uint8_t secret[DIAL_BACK_SECRET];
	void *found = NULL;

	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < DIAL_BACK_MAX; i++) {
			tickets[i] = dial_back_add(table, &visitor, 5000, secret);
			assert(tickets[i] != 0);
		}
		assert(dial_back_add(table, &visitor, 5000, secret) == 0);
		for (uint32_t i = 0; i < DIAL_BACK_MAX; i++)
			dial_back_remove(table, tickets[i]);
		assert(table->n == 0);
	}
	assert(dial_back_add(table, &visitor, 5000, secret) != 0);
	for (uint32_t i = 0; i < DIAL_BACK_MAX; i++)
		assert(!dial_back_find(table, tickets[i])); /* a ticket is never used again */
	assert(dial_back_take(table, secret, 0, &found) == 0);
	free(table);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_a_secret_finds_its_visitor_once();
	test_a_secret_lives_until_its_visitor_is_late();
	test_a_guess_is_told_from_who_is_late();
	test_a_late_secret_is_known_however_many_came_meanwhile();
	test_a_secret_is_of_its_table_alone();
	test_so_many_wait_at_most_and_places_come_back();
	return 0;
}
