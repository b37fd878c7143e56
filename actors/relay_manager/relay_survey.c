#include "actors/relay_manager/relay_survey.h"

bool relay_survey_is_due(struct relay_survey *survey, uint64_t now_ms)
{
	const uint64_t pause_ms = survey->pause_ms != 0 ? survey->pause_ms : RELAY_SURVEY_MIN_MS;

	if (survey->tried_ms != 0 && now_ms - survey->tried_ms < pause_ms)
		return false;
	if (survey->tried_ms != 0)
		survey->pause_ms = pause_ms * 2 < RELAY_SURVEY_MAX_MS ? pause_ms * 2 : RELAY_SURVEY_MAX_MS;
	return true;
}

void relay_survey_forgive(struct relay_survey *survey)
{
	survey->pause_ms = 0;
}

static bool is_wanted(const struct home_fsm *home, const struct home_relay *relay, uint64_t now_ms)
{
	return relay->id != home->home && relay->down_until_ms <= now_ms && home_fsm_latency_us(home, relay->id) == 0;
}

uint32_t relay_survey_begin(struct relay_survey *survey, const struct home_fsm *home, uint64_t now_ms, uint32_t *ret)
{
	const uint32_t first = survey->next;
	uint32_t n = 0;

	survey->tried_ms = now_ms;
	for (uint32_t i = 0; i < home->n_relays && n < RELAY_SURVEY_MOST; i++) {
		const uint32_t at = (uint32_t)(((uint64_t)first + i) % home->n_relays);
		if (!is_wanted(home, &home->relays[at], now_ms))
			continue;
		ret[n++] = home->relays[at].id;
		survey->next = at + 1;
	}
	return n;
}
