/* A hash table with chains, and a ring for each state: who was heard last stands last, so the first is over first. */
#include "relay/frontdoor/datagram_flows.h"

#include "common/source_limit.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SOURCES 65536
#define PORTS	65536
#define SLOTS	256 /* of ports that have what begins a second in common: more than a door opens */

/* So many a second, and twice as many at once. */
struct bucket {
	uint64_t filled_ms, milli_tokens;
};

struct datagram_flows {
	struct datagram_flows_options options;
	struct datagram_counters counters;
	uint8_t seed[crypto_shorthash_KEYBYTES];
	struct source_limit of_source;
	struct bucket of_all, of_port[SLOTS];
	struct link rings[DATAGRAM_N_STATES], all;
	uint16_t n_of_source[SOURCES], n_of_port[PORTS];
	uint32_t n_ports; /* that have flows */
	uint32_t n_buckets; /* a power of two */
	struct datagram_flow *buckets[];
};

/* ---- the table ---- */

static uint64_t hash_of(const struct datagram_flows *flows, const void *bytes, size_t n)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint64_t number;

	crypto_shorthash(hash, bytes, n, flows->seed);
	memcpy(&number, hash, sizeof(number));
	return number;
}

static struct datagram_flow **bucket_of(struct datagram_flows *flows, const struct udp_way *way)
{
	uint8_t key[20];

	memcpy(key, way->remote.ip, 16);
	memcpy(key + 16, &way->remote.port, 2);
	memcpy(key + 18, &way->socket, 2);
	return &flows->buckets[hash_of(flows, key, sizeof(key)) & (flows->n_buckets - 1)];
}

static struct datagram_flow *find(struct datagram_flows *flows, const struct udp_way *way)
{
	struct datagram_flow *flow = *bucket_of(flows, way);

	while (flow && !(endpoint_equal(&flow->way.remote, &way->remote) && flow->way.socket == way->socket &&
			 memcmp(flow->way.local_ip, way->local_ip, sizeof(way->local_ip)) == 0))
		flow = flow->next;
	return flow;
}

static uint16_t source_of(const struct datagram_flows *flows, const struct endpoint *visitor)
{
	return (uint16_t)hash_of(flows, visitor->ip, endpoint_is_v4(visitor) ? 16 : 7);
}

/* ---- room ---- */

static bool take_token(struct bucket *bucket, uint32_t per_s, uint64_t now_ms)
{
	const uint64_t full = (uint64_t)per_s * 2000;
	const uint64_t passed_ms = now_ms > bucket->filled_ms ? now_ms - bucket->filled_ms : 0;

	bucket->milli_tokens += (passed_ms < 2000 ? passed_ms : 2000) * per_s;
	bucket->milli_tokens = bucket->milli_tokens < full ? bucket->milli_tokens : full;
	bucket->filled_ms = now_ms;
	if (bucket->milli_tokens < 1000)
		return false;
	bucket->milli_tokens -= 1000;
	return true;
}

/* Of all; or of those that are the port's own, so that others cannot use up what it needs. */
static bool may_begin_now(struct datagram_flows *flows, uint16_t port, uint64_t now_ms)
{
	return take_token(&flows->of_all, flows->options.begun_per_s, now_ms) ||
	       take_token(&flows->of_port[port % SLOTS], flows->options.begun_port_per_s, now_ms);
}

/* May it make room? Who is TALKING only when it was silent for a while. */
static bool is_spare(const struct datagram_flows *flows, const struct datagram_flow *flow, uint64_t now_ms)
{
	return flow->state != DATAGRAM_TALKING || flow->heard_ms + flows->options.times_ms[DATAGRAM_ANSWERED] <= now_ms;
}

/* The first of a source that may make room; NULL: there is none. */
static struct datagram_flow *find_of_source(struct datagram_flows *flows, uint16_t source, uint64_t now_ms)
{
	for (int state = 0; state < DATAGRAM_N_STATES; state++)
		for (struct link *at = flows->rings[state].after; at != &flows->rings[state]; at = at->after) {
			struct datagram_flow *flow = container_of(at, struct datagram_flow, place);
			if (!is_spare(flows, flow, now_ms))
				break; /* nor are those behind it */
			if (flow->source == source)
				return flow;
		}
	return NULL;
}

/*
 * The first that may make room for a flow of that port; NULL: there is none. If the port has less than its share, then another has
 * more than that, as all are taken.
 */
static struct datagram_flow *find_for_port(struct datagram_flows *flows, uint16_t port, uint64_t now_ms)
{
	const uint32_t share = flows->options.max_flows / (flows->n_ports + (flows->n_of_port[port] == 0));
	const bool is_below = flows->n_of_port[port] < share;

	for (int state = 0; state < DATAGRAM_N_STATES; state++)
		for (struct link *at = flows->rings[state].after; at != &flows->rings[state]; at = at->after) {
			struct datagram_flow *flow = container_of(at, struct datagram_flow, place);
			const bool is_above = flows->n_of_port[flow->port] > share;
			const bool spare = is_spare(flows, flow, now_ms);
			if (!spare && !is_below)
				break; /* nor are those behind it */
			if (is_above ? is_below || spare : flow->port == port && spare)
				return flow;
		}
	return NULL;
}

static bool evict(struct datagram_flows *flows, struct datagram_flow *flow)
{
	if (!flow)
		return false;
	flows->counters.evicted++;
	datagram_flows_end(flows, flow);
	return true;
}

/* If not, that is counted. */
static bool may_begin(struct datagram_flows *flows, const struct endpoint *visitor, uint16_t port, uint16_t source,
		      uint64_t now_ms)
{
	struct datagram_counters *counters = &flows->counters;

	if (!source_limit_take(&flows->of_source, visitor, now_ms) || !may_begin_now(flows, port, now_ms)) {
		counters->over_rate++;
		return false;
	}
	if (flows->n_of_source[source] >= flows->options.max_source &&
	    !evict(flows, find_of_source(flows, source, now_ms))) {
		counters->over_source_limit++;
		return false;
	}
	if (counters->flows_now >= flows->options.max_flows && !evict(flows, find_for_port(flows, port, now_ms))) {
		counters->over_limit++;
		return false;
	}
	return true;
}

/* ---- flows come and go ---- */

static void place(struct datagram_flows *flows, struct datagram_flow *flow, enum datagram_state state)
{
	flow->state = (uint8_t)state;
	link_put_last(&flows->rings[state], &flow->place);
}

static struct datagram_flow *begin(struct datagram_flows *flows, const struct udp_way *way, const struct endpoint *visitor,
				   uint16_t port, uint16_t source)
{
	struct datagram_flow *flow = calloc(1, sizeof(*flow));
	struct datagram_flow **bucket = bucket_of(flows, way);

	if (!flow)
		abort();
	flow->way = *way;
	flow->visitor = *visitor;
	flow->port = port;
	flow->source = source;
	flow->next = *bucket;
	*bucket = flow;
	flows->n_of_source[source]++;
	flows->n_ports += flows->n_of_port[port]++ == 0;
	flows->counters.flows++;
	flows->counters.flows_now++;
	link_put_last(&flows->all, &flow->among_all);
	return flow;
}

void datagram_flows_end(struct datagram_flows *flows, struct datagram_flow *flow)
{
	struct datagram_flow **at = bucket_of(flows, &flow->way);

	flows->options.ended(flows->options.owner, flow);
	while (*at != flow)
		at = &(*at)->next;
	*at = flow->next;
	link_remove(&flow->place);
	link_remove(&flow->among_all);
	flows->n_of_source[flow->source]--;
	flows->n_ports -= --flows->n_of_port[flow->port] == 0;
	flows->counters.flows_now--;
	free(flow);
}

struct datagram_flow *datagram_flows_find(struct datagram_flows *flows, const struct udp_way *way)
{
	return find(flows, way);
}

bool datagram_flows_end_of(struct datagram_flows *flows, const struct udp_way *way, const struct endpoint *visitor, uint16_t port)
{
	struct datagram_flow *flow = find(flows, way);

	if (!flow || !endpoint_equal(&flow->visitor, visitor) || flow->port != port)
		return false;
	datagram_flows_end(flows, flow);
	return true;
}

void datagram_flows_end_some(struct datagram_flows *flows, bool (*ends)(const void *context, const struct datagram_flow *flow),
			     const void *context)
{
	struct link *next;

	for (struct link *at = flows->all.after; at != &flows->all; at = next) {
		struct datagram_flow *flow = container_of(at, struct datagram_flow, among_all);
		next = at->after;
		if (ends(context, flow))
			datagram_flows_end(flows, flow);
	}
}

/* ---- datagrams ---- */

enum datagram_verdict datagram_flows_from_visitor(struct datagram_flows *flows, const struct udp_way *way,
						  const struct endpoint *visitor, uint16_t port, uint64_t now_ms,
						  struct datagram_flow **ret)
{
	struct datagram_flow *flow = find(flows, way);
	const bool is_known = flow && endpoint_equal(&flow->visitor, visitor) && flow->port == port;

	if (flow && !is_known) /* a door has its socket for somebody else now */
		datagram_flows_end(flows, flow);
	if (!is_known) {
		const uint16_t source = source_of(flows, visitor);
		if (!may_begin(flows, visitor, port, source, now_ms))
			return DATAGRAM_DROPPED;
		flow = begin(flows, way, visitor, port, source);
	}
	const bool talks = is_known && flow->state != DATAGRAM_ASKED;
	flow->heard_ms = now_ms;
	place(flows, flow, talks ? DATAGRAM_TALKING : DATAGRAM_ASKED);
	*ret = flow;
	return is_known ? DATAGRAM_PASS : DATAGRAM_BEGUN;
}

/* By when it was heard, as the others in the ring: few are later than it, for it was heard a moment ago. */
static void place_by_time(struct datagram_flows *flows, struct datagram_flow *flow, enum datagram_state state)
{
	struct link *ring = &flows->rings[state], *before = ring->before;

	while (before != ring && container_of(before, struct datagram_flow, place)->heard_ms > flow->heard_ms)
		before = before->before;
	link_remove(&flow->place);
	flow->state = (uint8_t)state;
	flow->place.before = before;
	flow->place.after = before->after;
	before->after->before = &flow->place;
	before->after = &flow->place;
}

void datagram_flows_from_target(struct datagram_flows *flows, struct datagram_flow *flow)
{
	if (flow->state == DATAGRAM_ASKED)
		place_by_time(flows, flow, DATAGRAM_ANSWERED);
}

uint64_t datagram_flows_expire(struct datagram_flows *flows, uint64_t now_ms)
{
	uint64_t next = UINT64_MAX;

	for (int state = 0; state < DATAGRAM_N_STATES; state++) {
		struct link *first;
		while ((first = link_first(&flows->rings[state]))) {
			struct datagram_flow *flow = container_of(first, struct datagram_flow, place);
			const uint64_t over_ms = flow->heard_ms + flows->options.times_ms[state];
			if (over_ms > now_ms) {
				next = over_ms < next ? over_ms : next;
				break;
			}
			datagram_flows_end(flows, flow);
		}
	}
	return next;
}

/* ---- beginning and end ---- */

struct datagram_flows *datagram_flows_new(const struct datagram_flows_options *options, uint64_t now_ms)
{
	uint32_t n_buckets = 16;

	while (n_buckets < options->max_flows)
		n_buckets *= 2;
	struct datagram_flows *flows = calloc(1, sizeof(*flows) + n_buckets * sizeof(struct datagram_flow *));
	if (!flows)
		abort();
	flows->options = *options;
	flows->n_buckets = n_buckets;
	flows->of_all = (struct bucket){ now_ms, (uint64_t)options->begun_per_s * 2000 };
	for (int i = 0; i < SLOTS; i++)
		flows->of_port[i] = (struct bucket){ now_ms, (uint64_t)options->begun_port_per_s * 2000 };
	crypto_shorthash_keygen(flows->seed);
	source_limit_init(&flows->of_source, options->begun_source_per_s, options->begun_source_per_s * 2);
	flows->of_source.is_each_v4 = true;
	link_init_ring(&flows->all);
	for (int i = 0; i < DATAGRAM_N_STATES; i++)
		link_init_ring(&flows->rings[i]);
	return flows;
}

void datagram_flows_free(struct datagram_flows *flows)
{
	struct link *first;

	while (flows && (first = link_first(&flows->all)))
		datagram_flows_end(flows, container_of(first, struct datagram_flow, among_all));
	free(flows);
}

struct datagram_counters *datagram_flows_counters(struct datagram_flows *flows)
{
	return &flows->counters;
}
