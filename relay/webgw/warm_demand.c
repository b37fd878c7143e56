#include "relay/webgw/warm_demand.h"

void warm_demand_note(struct warm_demand *demand, uint64_t now_ms)
{
	const uint64_t now = now_ms / 1000;

	for (uint64_t i = 0; i < WARM_DEMAND_S && now - i > demand->second; i++)
		demand->visitors[(now - i) % WARM_DEMAND_S] = 0;
	demand->second = now > demand->second ? now : demand->second; /* a clock that goes back counts for the last second */
	uint16_t *visitors = &demand->visitors[demand->second % WARM_DEMAND_S];
	*visitors = (uint16_t)(*visitors + (*visitors < UINT16_MAX));
}

uint32_t warm_demand_wanted(const struct warm_demand *demand, uint32_t least, uint32_t most, uint64_t now_ms)
{
	const uint64_t now = now_ms / 1000;
	uint32_t wanted = least;

	for (uint64_t i = 0; i < WARM_DEMAND_S && i <= demand->second; i++) {
		const uint64_t second = demand->second - i;
		const uint32_t n = second + WARM_DEMAND_S > now ? demand->visitors[second % WARM_DEMAND_S] : 0;
		wanted = n > wanted ? n : wanted;
	}
	return wanted < most ? wanted : most;
}
