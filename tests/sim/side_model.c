#include "tests/sim/side_model.h"

#include <errno.h>
#include <stddef.h>

#define FIRST_PORT 20000
#define LAST_PORT  40000
#define FIRST_NEAR 50000
#define TURN_NS	   1000000u /* a loop turn, at the most */

static uint32_t n_pairs_of(const struct side_model *side, uint32_t peer)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < side->n_pairs; i++)
		n += side->pairs[i].peer == peer;
	return n;
}

static void remove_pairs(struct side_model *side, uint32_t peer)
{
	for (uint32_t i = 0; i < side->n_pairs;) {
		if (side->pairs[i].peer == peer)
			side->pairs[i] = side->pairs[--side->n_pairs];
		else
			i++;
	}
}

int side_model_open(struct side_model *side, uint64_t now_ns, uint32_t peer, uint32_t n, const struct endpoint *from)
{
	if (side->is_open || (side->closed_ns != 0 && now_ns < side->closed_ns + TURN_NS))
		return -EBUSY;
	remove_pairs(side, peer);
	if (side->next_port < FIRST_PORT || side->next_port + n > LAST_PORT)
		side->next_port = FIRST_PORT;
	side->is_open = true;
	side->peer = peer;
	side->n = n;
	side->from = *from;
	side->first_port = side->next_port;
	side->next_port = (uint16_t)(side->next_port + n);
	side->n_searches++;
	if (n > side->most_sockets)
		side->most_sockets = n;
	return 0;
}

uint16_t side_model_knock(struct side_model *side, uint32_t peer, uint32_t number)
{
	if (!side->is_open || side->peer != peer || number >= side->n)
		return 0;
	side->n_knocks++;
	return (uint16_t)(side->first_port + number);
}

void side_model_close(struct side_model *side, uint64_t now_ns, uint32_t peer)
{
	if (!side->is_open || side->peer != peer)
		return;
	side->is_open = false;
	side->closed_ns = now_ns;
}

void side_model_end(struct side_model *side, uint64_t now_ns, uint32_t peer)
{
	side_model_close(side, now_ns, peer);
	remove_pairs(side, peer);
}

const struct side_pair *side_model_hear(struct side_model *side, uint16_t port, const struct endpoint *from)
{
	struct side_pair *pair;

	for (uint32_t i = 0; i < side->n_pairs; i++) /* it is connected: to one, and nobody else */
		if (side->pairs[i].far_port == port)
			return endpoint_equal(&side->pairs[i].to, from) ? &side->pairs[i] : NULL;
	if (!side->is_open || port < side->first_port || port >= side->first_port + side->n ||
	    !endpoint_equal(from, &side->from) || side->n_pairs == SIDE_MODEL_MAX ||
	    n_pairs_of(side, side->peer) == SIDE_MODEL_MAX_PEER)
		return NULL;
	if (side->next_near < FIRST_NEAR)
		side->next_near = FIRST_NEAR;
	pair = &side->pairs[side->n_pairs++];
	*pair = (struct side_pair){ .peer = side->peer, .near_port = side->next_near++, .far_port = port, .to = *from };
	return pair;
}

const struct side_pair *side_model_by_near(const struct side_model *side, uint16_t port)
{
	for (uint32_t i = 0; i < side->n_pairs; i++)
		if (side->pairs[i].near_port == port)
			return &side->pairs[i];
	return NULL;
}
