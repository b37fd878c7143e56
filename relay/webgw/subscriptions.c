#include "relay/webgw/subscriptions.h"

#include "common/macros.h"
#include "relay/frontdoor/host_table.h"
#include "relay/frontdoor/link.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define HOST_BUCKETS 1024
#define ID_BUCKETS   4096

struct host {
	struct host_entry entry;
	uint32_t place; /* among all hosts */
	uint32_t n;
	uint8_t hash[WEBGW_HASH_LEN];
	bool is_members;
	enum webgw_balance balance;
	void *data;
	struct link subscribers; /* whose turn it is first */
};

struct subscriber {
	struct link of_host;
	struct subscriber *next; /* of its bucket */
	struct host *host;
	void *owner;
	int64_t id;
	uint16_t place; /* of its tally */
	uint64_t passed_over; /* for that visitor */
	uint32_t n_pending;
	uint32_t n_in_vain, n_unanswered; /* in a row */
	uint64_t n_dialled;
	uint64_t dialled_ms; /* last */
	uint32_t answered, unanswered; /* of its tally, when that was looked at last; */
	uint32_t unanswered_before;    /* and when it came */
	bool has_answered;
	uint64_t answered_ms; /* last, as far as is known */
	uint64_t rests_until_ms;
};

struct subscriptions {
	uint32_t n_hosts, n;
	uint64_t n_visitors;
	struct host *hosts[SUBSCRIPTIONS_MAX_HOSTS];
	struct host_table by_name;
	struct host_entry *name_buckets[HOST_BUCKETS];
	struct subscriber *by_id[ID_BUCKETS];
	struct agent_tally tallies[SUBSCRIPTIONS_MAX];
	uint16_t free[SUBSCRIPTIONS_MAX]; /* places there; a ring, so that none is somebody else's soon */
	uint32_t first_free;		  /* n of them are not free */
};

struct subscriptions *subscriptions_new(void)
{
	struct subscriptions *table = calloc(1, sizeof(*table));

	if (!table)
		abort();
	host_table_init(&table->by_name, table->name_buckets, HOST_BUCKETS);
	for (uint16_t i = 0; i < SUBSCRIPTIONS_MAX; i++)
		table->free[i] = i;
	return table;
}

/* ---- subscribers by id ---- */

static struct subscriber **bucket_of(struct subscriptions *table, int64_t id)
{
	return &table->by_id[(uint64_t)id % ID_BUCKETS];
}

static struct subscriber *find(struct subscriptions *table, int64_t id)
{
	struct subscriber *subscriber = *bucket_of(table, id);

	while (subscriber && subscriber->id != id)
		subscriber = subscriber->next;
	return subscriber;
}

/* Random, so that nobody guesses another's; below 10^15, which every JSON library has exactly. */
static int64_t new_id(struct subscriptions *table)
{
	uint64_t id;

	do {
		randombytes_buf(&id, sizeof(id));
		id = id % (uint64_t)WEBGW_MAX_SUBSCRIPTION + 1;
	} while (find(table, (int64_t)id));
	return (int64_t)id;
}

static void drop(struct subscriptions *table, struct subscriber *subscriber)
{
	struct subscriber **at = bucket_of(table, subscriber->id);

	while (*at != subscriber)
		at = &(*at)->next;
	*at = subscriber->next;
	link_remove(&subscriber->of_host);
	subscriber->host->n--;
	table->n--;
	table->free[(table->first_free + SUBSCRIPTIONS_MAX - table->n - 1) % SUBSCRIPTIONS_MAX] = subscriber->place; /* last */
	free(subscriber);
}

/* ---- hosts ---- */

static struct host *find_host(const struct subscriptions *table, const struct host_pattern *pattern)
{
	struct host_entry *entry = host_table_find_pattern(&table->by_name, pattern);

	return entry ? container_of(entry, struct host, entry) : NULL;
}

int subscriptions_add_host(struct subscriptions *table, const struct host_pattern *pattern,
			   const uint8_t hash[WEBGW_HASH_LEN])
{
	struct host *host = find_host(table, pattern);

	if (host)
		return !host->is_members && memcmp(host->hash, hash, WEBGW_HASH_LEN) == 0 ? 0 : -EEXIST;
	if (table->n_hosts == SUBSCRIPTIONS_MAX_HOSTS)
		return -ENOBUFS;
	host = calloc(1, sizeof(*host));
	if (!host)
		abort();
	host->entry.pattern = *pattern;
	memcpy(host->hash, hash, WEBGW_HASH_LEN);
	link_init_ring(&host->subscribers);
	host->place = table->n_hosts;
	table->hosts[table->n_hosts++] = host;
	return host_table_add(&table->by_name, &host->entry);
}

int subscriptions_add_members_host(struct subscriptions *table, const struct host_pattern *pattern)
{
	static const uint8_t none[WEBGW_HASH_LEN];
	const struct host *there = find_host(table, pattern);

	if (there)
		return there->is_members ? 0 : -EEXIST;
	const int r = subscriptions_add_host(table, pattern, none);
	if (r == 0)
		find_host(table, pattern)->is_members = true;
	return r;
}

bool subscriptions_set_balance(struct subscriptions *table, const struct host_pattern *pattern, enum webgw_balance balance)
{
	struct host *host = find_host(table, pattern);

	if (host)
		host->balance = balance;
	return host != NULL;
}

static void free_host(struct subscriptions *table, struct host *host)
{
	struct link *first;

	while ((first = link_first(&host->subscribers)))
		drop(table, container_of(first, struct subscriber, of_host));
	host_table_remove(&table->by_name, &host->entry);
	table->hosts[host->place] = table->hosts[--table->n_hosts];
	table->hosts[host->place]->place = host->place;
	free(host);
}

bool subscriptions_remove_host(struct subscriptions *table, const struct host_pattern *pattern)
{
	struct host *host = find_host(table, pattern);

	if (host)
		free_host(table, host);
	return host != NULL;
}

void subscriptions_free(struct subscriptions *table)
{
	if (!table)
		return;
	while (table->n_hosts > 0)
		free_host(table, table->hosts[table->n_hosts - 1]);
	free(table);
}

/* ---- agents ---- */

static uint32_t get(const _Atomic uint32_t *count)
{
	return atomic_load_explicit(count, memory_order_relaxed);
}

static struct subscriber *find_of_owner(const struct host *host, const void *owner)
{
	for (struct link *at = host->subscribers.after; at != &host->subscribers; at = at->after) {
		struct subscriber *subscriber = container_of(at, struct subscriber, of_host);
		if (subscriber->owner == owner)
			return subscriber;
	}
	return NULL;
}

static struct subscriber *add_subscriber(struct subscriptions *table, struct host *host, void *owner)
{
	struct subscriber *subscriber = calloc(1, sizeof(*subscriber));

	if (!subscriber)
		abort();
	*subscriber = (struct subscriber){ .host = host, .owner = owner, .id = new_id(table),
					   .place = table->free[table->first_free] };
	subscriber->answered = get(&table->tallies[subscriber->place].answered); /* of who was there before it */
	subscriber->unanswered = get(&table->tallies[subscriber->place].unanswered);
	subscriber->unanswered_before = subscriber->unanswered;
	table->first_free = (table->first_free + 1) % SUBSCRIPTIONS_MAX;
	struct subscriber **bucket = bucket_of(table, subscriber->id);
	subscriber->next = *bucket;
	*bucket = subscriber;
	link_put_last(&host->subscribers, &subscriber->of_host);
	host->n++;
	table->n++;
	return subscriber;
}

static int enter(struct subscriptions *table, struct host *host, void *owner, int64_t *ret_id)
{
	struct subscriber *subscriber = find_of_owner(host, owner);

	if (!subscriber) {
		if (host->n == SUBSCRIPTIONS_MAX_OF_HOST || table->n == SUBSCRIPTIONS_MAX)
			return SUBSCRIPTIONS_FULL;
		subscriber = add_subscriber(table, host, owner);
	}
	*ret_id = subscriber->id;
	return 0;
}

int subscriptions_register(struct subscriptions *table, const struct host_pattern *pattern,
			   const uint8_t hash[WEBGW_HASH_LEN], void *owner, int64_t *ret_id)
{
	struct host *host = find_host(table, pattern);

	if (!host)
		return SUBSCRIPTIONS_UNKNOWN_HOST;
	if (host->is_members || sodium_memcmp(host->hash, hash, WEBGW_HASH_LEN) != 0)
		return SUBSCRIPTIONS_WRONG_SECRET;
	return enter(table, host, owner, ret_id);
}

int subscriptions_register_member(struct subscriptions *table, const struct host_pattern *pattern, void *owner,
				  int64_t *ret_id)
{
	struct host *host = find_host(table, pattern);

	if (!host)
		return SUBSCRIPTIONS_UNKNOWN_HOST;
	return host->is_members ? enter(table, host, owner, ret_id) : SUBSCRIPTIONS_WRONG_SECRET;
}

bool subscriptions_unregister(struct subscriptions *table, const void *owner, int64_t id)
{
	struct subscriber *subscriber = find(table, id);

	if (!subscriber || subscriber->owner != owner)
		return false;
	drop(table, subscriber);
	return true;
}

void subscriptions_drop_owner(struct subscriptions *table, const void *owner)
{
	for (uint32_t i = 0; i < ID_BUCKETS; i++) {
		for (struct subscriber *at = table->by_id[i], *next; at; at = next) {
			next = at->next;
			if (at->owner == owner)
				drop(table, at);
		}
	}
}

/* ---- visitors ---- */

static uint64_t n_open(const struct subscriptions *table, const struct subscriber *subscriber)
{
	return get(&table->tallies[subscriber->place].open);
}

static bool is_in_doubt(const struct subscriber *subscriber)
{
	return subscriber->n_in_vain >= SUBSCRIPTIONS_DOUBT || subscriber->n_unanswered >= SUBSCRIPTIONS_DOUBT;
}

static void note_answered(struct subscriber *subscriber, uint64_t now_ms)
{
	subscriber->has_answered = true;
	subscriber->answered_ms = now_ms;
	subscriber->n_unanswered = 0;
	if (!is_in_doubt(subscriber))
		subscriber->rests_until_ms = 0;
}

static void note_unanswered(struct subscriber *subscriber, uint32_t n, uint64_t now_ms)
{
	if (subscriber->has_answered && now_ms < subscriber->answered_ms + SUBSCRIPTIONS_SIGN_MS)
		return;
	const uint32_t missing = SUBSCRIPTIONS_DOUBT - subscriber->n_unanswered;
	subscriber->n_unanswered += n < missing ? n : missing;
	if (subscriber->n_unanswered == SUBSCRIPTIONS_DOUBT)
		subscriber->rests_until_ms = now_ms + SUBSCRIPTIONS_REST_MS;
}

/* In which order they were is not known: one who was answered stands for the last. */
static void look_at_tally(const struct subscriptions *table, struct subscriber *subscriber, uint64_t now_ms)
{
	const struct agent_tally *tally = &table->tallies[subscriber->place];
	const uint32_t answered = get(&tally->answered), unanswered = get(&tally->unanswered);

	if (answered != subscriber->answered)
		note_answered(subscriber, now_ms);
	else if (unanswered != subscriber->unanswered)
		note_unanswered(subscriber, unanswered - subscriber->unanswered, now_ms);
	subscriber->answered = answered;
	subscriber->unanswered = unanswered;
}

/* Of those that have room: who has the fewest, and of these whose turn it is; or whose turn it is. */
static struct subscriber *choose(const struct subscriptions *table, const struct host *host,
				 enum subscriptions_health health, uint64_t now_ms)
{
	struct subscriber *chosen = NULL;
	uint64_t fewest = UINT64_MAX;

	for (struct link *at = host->subscribers.after; at != &host->subscribers; at = at->after) {
		struct subscriber *subscriber = container_of(at, struct subscriber, of_host);
		look_at_tally(table, subscriber, now_ms);
		const bool is_resting = now_ms < subscriber->rests_until_ms;
		if (subscriber->n_pending >= SUBSCRIPTIONS_MAX_PENDING || is_resting != (health == SUBSCRIPTIONS_RESTING) ||
		    (table->n_visitors > 0 && subscriber->passed_over == table->n_visitors))
			continue;
		const uint64_t n = host->balance == WEBGW_ROUND_ROBIN ? 0 : subscriber->n_pending + n_open(table, subscriber);
		if (n < fewest) {
			chosen = subscriber;
			fewest = n;
		}
	}
	return chosen;
}

void subscriptions_begin(struct subscriptions *table)
{
	table->n_visitors++;
}

void subscriptions_pass_over(struct subscriptions *table, int64_t id)
{
	struct subscriber *subscriber = find(table, id);

	if (subscriber)
		subscriber->passed_over = table->n_visitors;
}

void *subscriptions_pick(struct subscriptions *table, const struct host_name *name, enum subscriptions_health health,
			 uint64_t now_ms, int64_t *ret_id)
{
	struct host_entry *entry = host_table_find(&table->by_name, name);
	struct host *host = entry ? container_of(entry, struct host, entry) : NULL;
	struct subscriber *chosen = host ? choose(table, host, health, now_ms) : NULL;

	if (!chosen)
		return NULL;
	link_put_last(&host->subscribers, &chosen->of_host);
	*ret_id = chosen->id;
	return chosen->owner;
}

void subscriptions_told(struct subscriptions *table, int64_t id, uint64_t now_ms)
{
	struct subscriber *subscriber = find(table, id);

	if (!subscriber)
		return;
	subscriber->n_pending++;
	if (is_in_doubt(subscriber) && now_ms >= subscriber->rests_until_ms)
		subscriber->rests_until_ms = now_ms + SUBSCRIPTIONS_REST_MS; /* on trial: with this one alone */
}

static void note_in_vain(struct subscriber *subscriber, uint64_t now_ms)
{
	if (subscriber->n_dialled > 0 && now_ms < subscriber->dialled_ms + SUBSCRIPTIONS_SIGN_MS)
		return;
	if (++subscriber->n_in_vain >= SUBSCRIPTIONS_DOUBT)
		subscriber->rests_until_ms = now_ms + SUBSCRIPTIONS_REST_MS;
}

void subscriptions_over(struct subscriptions *table, int64_t id, enum subscriptions_end end, uint64_t now_ms)
{
	struct subscriber *subscriber = find(table, id);

	if (!subscriber)
		return;
	subscriber->n_pending--;
	if (end == SUBSCRIPTIONS_IN_VAIN)
		note_in_vain(subscriber, now_ms);
	if (end != SUBSCRIPTIONS_DIALLED)
		return;
	subscriber->n_dialled++;
	subscriber->dialled_ms = now_ms;
	subscriber->n_in_vain = 0;
	if (!is_in_doubt(subscriber))
		subscriber->rests_until_ms = 0;
}

struct agent_tally *subscriptions_tally(struct subscriptions *table, int64_t id)
{
	const struct subscriber *subscriber = find(table, id);

	return subscriber ? &table->tallies[subscriber->place] : NULL;
}

void *subscriptions_owner(struct subscriptions *table, int64_t id)
{
	const struct subscriber *subscriber = find(table, id);

	return subscriber ? subscriber->owner : NULL;
}

uint32_t subscriptions_count(const struct subscriptions *table, const struct host_pattern *pattern)
{
	const struct host *host = find_host(table, pattern);

	return host ? host->n : 0;
}

uint32_t subscriptions_n_hosts(const struct subscriptions *table)
{
	return table->n_hosts;
}

bool subscriptions_host_at(const struct subscriptions *table, uint32_t i, struct host_pattern *ret,
			   uint8_t ret_hash[WEBGW_HASH_LEN])
{
	if (i >= table->n_hosts)
		return false;
	*ret = table->hosts[i]->entry.pattern;
	if (ret_hash)
		memcpy(ret_hash, table->hosts[i]->hash, WEBGW_HASH_LEN);
	return true;
}

bool subscriptions_is_members(const struct subscriptions *table, uint32_t i)
{
	return i < table->n_hosts && table->hosts[i]->is_members;
}

enum webgw_balance subscriptions_balance(const struct subscriptions *table, uint32_t i)
{
	return i < table->n_hosts ? table->hosts[i]->balance : WEBGW_LEAST_CONNECTIONS;
}

void **subscriptions_data(const struct subscriptions *table, const struct host_pattern *pattern)
{
	struct host *host = find_host(table, pattern);

	return host ? &host->data : NULL;
}

uint32_t subscriptions_of_host(const struct subscriptions *table, uint32_t i, uint64_t now_ms,
			       struct subscription_facts *ret, uint32_t room)
{
	const struct host *host = i < table->n_hosts ? table->hosts[i] : NULL;
	uint32_t n = 0;

	if (!host)
		return 0;
	for (struct link *at = host->subscribers.after; at != &host->subscribers && n < room; at = at->after) {
		const struct subscriber *subscriber = container_of(at, struct subscriber, of_host);
		ret[n++] = (struct subscription_facts){
			.host = &host->entry.pattern,
			.owner = subscriber->owner,
			.id = subscriber->id,
			.n_waiting = subscriber->n_pending,
			.n_open = (uint32_t)n_open(table, subscriber),
			.n_dialled = subscriber->n_dialled,
			.n_unanswered = get(&table->tallies[subscriber->place].unanswered) - subscriber->unanswered_before,
			.is_resting = now_ms < subscriber->rests_until_ms,
		};
	}
	return n;
}
