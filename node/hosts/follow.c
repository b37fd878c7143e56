#include "node/hosts/follow.h"

#include <stdlib.h>
#include <string.h>

#define TRY_NS	      500000000ull
#define SILENT_NS     2000000000ull
#define BACK_NS	      300000000ull /* its packets come from its UDP socket again */
#define NUDGE_NS      1000000000ull
#define BACK_OFF_NS   5000000000ull
#define ALONE_NS      10000000000ull
#define MAX_DOUBLINGS 6

struct follow *follow_find(const struct follow_table *table, uint32_t id)
{
	struct follow *follow = table->buckets[id % FOLLOW_BUCKETS];

	while (follow && follow->id != id)
		follow = follow->next;
	return follow;
}

struct follow *follow_get(struct follow_table *table, uint32_t id, const struct public_key *key)
{
	struct follow *follow = follow_find(table, id);

	if (!follow) {
		follow = calloc(1, sizeof(*follow));
		if (!follow)
			abort();
		follow->id = id;
		follow->next = table->buckets[id % FOLLOW_BUCKETS];
		table->buckets[id % FOLLOW_BUCKETS] = follow;
	}
	follow->key = *key;
	return follow;
}

void follow_remove(struct follow_table *table, const struct public_key *key)
{
	for (uint32_t i = 0; i < FOLLOW_BUCKETS; i++) {
		for (struct follow **at = &table->buckets[i]; *at; at = &(*at)->next) {
			struct follow *follow = *at;
			if (!public_key_equal(&follow->key, key))
				continue;
			*at = follow->next;
			free(follow);
			return;
		}
	}
}

void follow_clear(struct follow_table *table)
{
	for (uint32_t i = 0; i < FOLLOW_BUCKETS; i++) {
		while (table->buckets[i]) {
			struct follow *follow = table->buckets[i];
			table->buckets[i] = follow->next;
			free(follow);
		}
	}
}

/* It listens elsewhere, and the path is direct and nothing else, at the same address. */
static bool may_follow(const struct follow *follow)
{
	return !endpoint_is_none(&follow->told) && follow->path.direct && !follow->path.relay &&
	       !endpoint_equal(&follow->told, &follow->path.endpoint) &&
	       memcmp(follow->told.ip, follow->path.endpoint.ip, sizeof(follow->told.ip)) == 0;
}

struct peer_path follow_path(const struct follow *follow, struct endpoint *ret_extra)
{
	struct peer_path path = follow->path;

	*ret_extra = (struct endpoint){ 0 };
	if (follow->state == FOLLOW_ON)
		path.endpoint = follow->told;
	if (follow->state == FOLLOW_TRYING)
		*ret_extra = follow->told;
	return path;
}

static void begin_anew(struct follow *follow)
{
	follow->state = FOLLOW_OFF;
	follow->n_tries = 0;
	follow->tried_ns = 0;
}

void follow_set_path(struct follow *follow, const struct peer_path *path, uint64_t now_ns)
{
	if (follow->state == FOLLOW_ON && path->relay)
		follow->alone_ns = now_ns + ALONE_NS;
	follow->path = *path;
	if (!may_follow(follow))
		begin_anew(follow);
}

void follow_told(struct follow *follow, const struct endpoint *at)
{
	if (endpoint_equal(&follow->told, at))
		return;
	follow->told = *at;
	if (follow->state != FOLLOW_ON || !may_follow(follow))
		begin_anew(follow);
}

bool follow_arrived(struct follow *follow, const struct endpoint *from, uint64_t now_ns)
{
	if (!may_follow(follow) || now_ns < follow->alone_ns || !endpoint_equal(&follow->told, from))
		return false;
	follow->heard_ns = now_ns;
	bool changed = follow->state != FOLLOW_ON;
	follow->state = FOLLOW_ON;
	follow->n_tries = 0;
	return changed;
}

static bool leave(struct follow *follow, uint64_t now_ns)
{
	follow->state = FOLLOW_OFF;
	follow->tried_ns = now_ns;
	follow->n_tries += follow->n_tries <= MAX_DOUBLINGS;
	return true;
}

static bool look_off(struct follow *follow, uint64_t now_ns)
{
	uint64_t wait_ns = follow->n_tries == 0 ? 0 : BACK_OFF_NS << (follow->n_tries - 1);

	if (now_ns - follow->tried_ns < wait_ns)
		return false;
	follow->state = FOLLOW_TRYING;
	follow->tried_ns = now_ns;
	return true;
}

bool follow_look(struct follow *follow, const struct endpoint *last, uint64_t last_ns, uint64_t now_ns)
{
	if (!may_follow(follow) || now_ns < follow->alone_ns)
		return false;
	if (endpoint_equal(&follow->told, last) && last_ns > follow->heard_ns)
		return follow_arrived(follow, last, last_ns);
	if (follow->state == FOLLOW_OFF)
		return look_off(follow, now_ns);
	if (follow->state == FOLLOW_TRYING)
		return now_ns - follow->tried_ns >= TRY_NS && leave(follow, now_ns);
	bool is_back = endpoint_equal(&follow->path.endpoint, last) && last_ns > follow->heard_ns;
	return now_ns - follow->heard_ns >= (is_back ? BACK_NS : SILENT_NS) && leave(follow, now_ns);
}

bool follow_must_nudge(struct follow *follow, uint64_t sent_ns, uint64_t now_ns)
{
	uint64_t last_ns = sent_ns > follow->nudged_ns ? sent_ns : follow->nudged_ns;

	if (follow->state != FOLLOW_ON || now_ns - last_ns < NUDGE_NS)
		return false;
	follow->nudged_ns = now_ns;
	return true;
}
