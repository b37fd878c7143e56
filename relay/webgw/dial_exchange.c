#include "relay/webgw/dial_exchange.h"

#include "relay/frontdoor/splice_pump.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORD 16 /* more than a ring needs for a record beside what is in it */

/*
 * Of those that are owed each may be in one ring; of those that are over no more than were owed when the loop looked
 * last, and those it has answered since.
 */
void dial_exchange_init(struct dial_exchange *exchange, void (*wake_loop)(void *owner), void *owner)
{
	*exchange = (struct dial_exchange){ .wake_loop = wake_loop, .owner = owner };
	ring_init(&exchange->wanted, (DIAL_EXCHANGE_MAX + 1) * (sizeof(struct dial_wanted) + RECORD));
	ring_init(&exchange->over, 4 * DIAL_EXCHANGE_MAX * (sizeof(struct dial_over) + RECORD));
	ring_init(&exchange->callers, (DIAL_EXCHANGE_CALLERS + 1) * (sizeof(struct dial_caller) + RECORD));
	ring_init(&exchange->answers, (DIAL_EXCHANGE_MAX + 1) * (sizeof(struct dial_answer) + RECORD));
}

void dial_exchange_deinit(struct dial_exchange *exchange)
{
	struct dial_caller caller;
	struct dial_wanted wanted;

	while (dial_exchange_take_caller(exchange, &caller)) {
		if (caller.fd >= 0)
			splice_close_with_reset(caller.fd);
		free(caller.answer);
	}
	while (dial_exchange_take_wanted(exchange, &wanted))
		free(wanted.first);
	ring_deinit(&exchange->callers);
	ring_deinit(&exchange->wanted);
	ring_deinit(&exchange->over);
	ring_deinit(&exchange->answers);
}

static bool put(struct ring *ring, const void *record, size_t len)
{
	void *to = ring_reserve(ring, len);

	if (!to)
		return false;
	memcpy(to, record, len);
	ring_commit(ring);
	return true;
}

static bool take(struct ring *ring, void *ret, size_t len, bool is_secret)
{
	size_t n;
	void *record = (void *)ring_peek(ring, &n);

	if (!record)
		return false;
	assert(n == len);
	memcpy(ret, record, len);
	if (is_secret)
		sodium_memzero(record, len);
	ring_release(ring);
	return true;
}

bool dial_exchange_want(struct dial_exchange *exchange, const struct dial_wanted *wanted)
{
	if (exchange->n_owed == DIAL_EXCHANGE_MAX || !put(&exchange->wanted, wanted, sizeof(*wanted)))
		return false;
	exchange->n_owed++;
	exchange->wake_loop(exchange->owner);
	return true;
}

void dial_exchange_end(struct dial_exchange *exchange, int64_t subscription, enum subscriptions_end end)
{
	const struct dial_over over = { .subscription = subscription, .end = end };

	exchange->n_owed--;
	if (subscription != 0 && put(&exchange->over, &over, sizeof(over)))
		exchange->wake_loop(exchange->owner);
}

bool dial_exchange_take_answer(struct dial_exchange *exchange, struct dial_answer *ret)
{
	return take(&exchange->answers, ret, sizeof(*ret), false);
}

bool dial_exchange_take_caller(struct dial_exchange *exchange, struct dial_caller *ret)
{
	return take(&exchange->callers, ret, sizeof(*ret), true);
}

bool dial_exchange_give(struct dial_exchange *exchange, const struct dial_caller *caller)
{
	return put(&exchange->callers, caller, sizeof(*caller));
}

bool dial_exchange_take_wanted(struct dial_exchange *exchange, struct dial_wanted *ret)
{
	return take(&exchange->wanted, ret, sizeof(*ret), true);
}

bool dial_exchange_take_over(struct dial_exchange *exchange, struct dial_over *ret)
{
	return take(&exchange->over, ret, sizeof(*ret), false);
}

void dial_exchange_answer(struct dial_exchange *exchange, const struct dial_answer *answer)
{
	const bool has_room = put(&exchange->answers, answer, sizeof(*answer));

	assert(has_room); /* no more are owed than there is room for */
	(void)has_room;
}
