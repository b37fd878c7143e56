#include "common/replay.h"

#define N_WORDS (REPLAY_BITS / 64)

static uint64_t *word_of(struct replay *replay, uint64_t position)
{
	return &replay->seen[position / 64 % N_WORDS];
}

bool replay_is_fresh(const struct replay *replay, uint64_t counter)
{
	uint64_t position = counter + 1;

	if (counter >= REPLAY_LIMIT)
		return false;
	if (position > replay->next)
		return true;
	if (replay->next - position > REPLAY_WINDOW)
		return false;
	return (replay->seen[position / 64 % N_WORDS] >> (position % 64) & 1) == 0;
}

/* The words between the old head and the new one become free. */
static void advance(struct replay *replay, uint64_t position)
{
	uint64_t words = position / 64 - replay->next / 64;

	if (words > N_WORDS)
		words = N_WORDS;
	for (uint64_t i = 1; i <= words; i++)
		*word_of(replay, replay->next + i * 64) = 0;
	replay->next = position;
}

bool replay_accept(struct replay *replay, uint64_t counter)
{
	uint64_t position = counter + 1;

	if (!replay_is_fresh(replay, counter))
		return false;
	if (position > replay->next)
		advance(replay, position);
	*word_of(replay, position) |= UINT64_C(1) << (position % 64);
	return true;
}
