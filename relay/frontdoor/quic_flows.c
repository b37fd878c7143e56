#include "relay/frontdoor/quic_flows.h"

#include "common/source_limit.h"

#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define SOURCES	       65536
#define FIRST_KEPT     4096  /* bytes; doubled up to MAX_KEPT */
#define MAX_KEPT       65536 /* of one that is SNIFFING: 32 datagrams as networks carry them, and some more */
#define RATE_BURST_MS  250
#define PATH_SILENT_MS 1000 /* after so long a path may go for another of its connection */

/* What came of who is not led anywhere yet. */
struct quic_sniffing {
	struct quic_initial initial;
	struct link among_kept;
	uint32_t n;
	size_t lens[QUIC_MAX_DATAGRAMS];
	size_t used, size; /* of bytes; 0: none yet */
	uint8_t *bytes;
	bool is_shared; /* it is quic_flows.first, of who sends all at once */
	struct quic_flow *flow;
};

struct rate {
	uint32_t per_s;
	uint64_t thousandths, at_ms;
};

struct quic_flows {
	struct quic_flows_options options;
	struct quic_ids ids;
	uint32_t n_buckets;
	struct quic_flow **buckets; /* by way */
	struct link states[QUIC_FLOW_N_STATES]; /* by when they fall silent, or began */
	struct link kept;
	struct quic_counters counters;
	struct rate hellos, negotiations;
	struct source_limit hellos_of;
	uint8_t seed[crypto_shorthash_KEYBYTES];
	uint16_t n_of_source[SOURCES];
	struct quic_header header;   /* of the datagram at hand */
	struct quic_sniffing first;
};

/* ---- bounds ---- */

static bool take_of_rate(struct rate *rate, uint64_t now_ms)
{
	const uint64_t most = (uint64_t)rate->per_s * RATE_BURST_MS < 1000 ? 1000 : (uint64_t)rate->per_s * RATE_BURST_MS;
	const uint64_t passed_ms = now_ms > rate->at_ms ? now_ms - rate->at_ms : 0;

	rate->thousandths += (passed_ms < RATE_BURST_MS ? passed_ms : RATE_BURST_MS) * rate->per_s;
	if (rate->thousandths > most || passed_ms >= 1000)
		rate->thousandths = most;
	rate->at_ms = now_ms;
	if (rate->thousandths < 1000)
		return false;
	rate->thousandths -= 1000;
	return true;
}

static uint16_t source_of(const struct quic_flows *flows, const struct endpoint *remote)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint16_t index;

	crypto_shorthash(hash, remote->ip, endpoint_is_v4(remote) ? 16 : 7, flows->seed);
	memcpy(&index, hash, sizeof(index));
	return index;
}

/* ---- paths come and go ---- */

static bool is_same_way(const struct udp_way *a, const struct udp_way *b)
{
	return endpoint_equal(&a->remote, &b->remote) && a->socket == b->socket &&
	       memcmp(a->local_ip, b->local_ip, sizeof(a->local_ip)) == 0;
}

static struct quic_flow **bucket_of(const struct quic_flows *flows, const struct udp_way *way)
{
	uint8_t key[16 + 16 + 2 + 2], hash[crypto_shorthash_BYTES];
	uint32_t index;

	memcpy(key, way->remote.ip, 16);
	memcpy(key + 16, way->local_ip, 16);
	memcpy(key + 32, &way->remote.port, 2);
	memcpy(key + 34, &way->socket, 2);
	crypto_shorthash(hash, key, sizeof(key), flows->seed);
	memcpy(&index, hash, sizeof(index));
	return &flows->buckets[index & (flows->n_buckets - 1)];
}

static void set_place(struct quic_flows *flows, struct quic_flow *flow)
{
	link_put_last(&flows->states[flow->fsm.state], &flow->place);
}

static void take_event(struct quic_flows *flows, struct quic_flow *flow, enum quic_flow_event event, uint64_t now_ms)
{
	const uint8_t before = flow->fsm.state;
	const uint64_t since_ms = flow->fsm.since_ms;

	quic_flow_take(&flow->fsm, event, now_ms);
	flows->counters.proven_now += flow->fsm.state == QUIC_FLOW_PROVEN && before != QUIC_FLOW_PROVEN;
	flows->counters.proven_now -= flow->fsm.state != QUIC_FLOW_PROVEN && before == QUIC_FLOW_PROVEN;
	flows->counters.sniffing_now -= before == QUIC_FLOW_SNIFFING && flow->fsm.state != QUIC_FLOW_SNIFFING;
	if (flow->fsm.state != before || flow->fsm.since_ms != since_ms)
		set_place(flows, flow);
}

static void free_sniffing(struct quic_flows *flows, struct quic_flow *flow)
{
	struct quic_sniffing *sniffing = flow->sniffing;

	flow->sniffing = NULL;
	if (!sniffing || sniffing->is_shared)
		return;
	flows->counters.kept_bytes_now -= sizeof(*sniffing) + sniffing->size;
	link_remove(&sniffing->among_kept);
	free(sniffing->bytes);
	free(sniffing);
}

static void let_go(struct quic_flows *flows, struct quic_connection *connection)
{
	if (--connection->n_flows > 0)
		return;
	quic_ids_forget(&flows->ids, connection);
	free(connection);
	flows->counters.connections_now--;
}

static void leave_connection(struct quic_flows *flows, struct quic_flow *flow)
{
	struct quic_connection *connection = flow->connection;

	flow->connection = NULL;
	if (!connection)
		return;
	link_remove(&flow->of_connection);
	if (connection->proven == flow)
		connection->proven = NULL;
	let_go(flows, connection);
}

void quic_flows_end(struct quic_flows *flows, struct quic_flow *flow)
{
	struct quic_flow **at = bucket_of(flows, &flow->way);

	flows->options.ended(flows->options.owner, flow);
	while (*at != flow)
		at = &(*at)->next;
	*at = flow->next;
	link_remove(&flow->place);
	free_sniffing(flows, flow);
	leave_connection(flows, flow);
	flows->n_of_source[flow->source]--;
	flows->counters.flows_now--;
	flows->counters.proven_now -= flow->fsm.state == QUIC_FLOW_PROVEN;
	flows->counters.sniffing_now -= flow->fsm.state == QUIC_FLOW_SNIFFING;
	free(flow);
}

static bool make_room(struct quic_flows *flows, uint64_t now_ms)
{
	for (int state = 0; state < QUIC_FLOW_N_STATES; state++) {
		struct link *first = link_first(&flows->states[state]);
		struct quic_flow *flow = first ? container_of(first, struct quic_flow, place) : NULL;
		if (!flow || !quic_flow_makes_room(&flow->fsm, &flows->options.times, now_ms))
			continue;
		flows->counters.over_limit++;
		quic_flows_end(flows, flow);
		return true;
	}
	return false;
}

/* Of those of one address and port the one that has shown least, and of these who is silent longest, goes for the next. */
static bool make_room_at(struct quic_flows *flows, const struct udp_way *way, uint64_t now_ms)
{
	struct quic_flow *least = NULL;
	uint32_t n = 0;

	for (struct quic_flow *flow = *bucket_of(flows, way); flow; flow = flow->next) {
		if (!is_same_way(&flow->way, way))
			continue;
		n++;
		if (!least || flow->fsm.state < least->fsm.state ||
		    (flow->fsm.state == least->fsm.state && flow->fsm.since_ms <= least->fsm.since_ms))
			least = flow;
	}
	if (n < QUIC_PATHS_OF_ONE)
		return true;
	flows->counters.over_port++;
	if (!quic_flow_makes_room(&least->fsm, &flows->options.times, now_ms))
		return false;
	quic_flows_end(flows, least);
	return true;
}

static struct quic_flow *begin(struct quic_flows *flows, const struct udp_way *way, enum quic_flow_state state,
			       uint64_t now_ms)
{
	const uint16_t source = source_of(flows, &way->remote);

	if (flows->n_of_source[source] >= flows->options.max_source) {
		flows->counters.over_source_limit++;
		return NULL;
	}
	if (!make_room_at(flows, way, now_ms))
		return NULL;
	if (flows->counters.flows_now >= flows->options.max_flows && !make_room(flows, now_ms)) {
		flows->counters.over_limit++;
		return NULL;
	}
	struct quic_flow *flow = calloc(1, sizeof(*flow)), **bucket = bucket_of(flows, way);
	if (!flow)
		abort();
	flow->way = *way;
	flow->source = source;
	flow->next = *bucket;
	*bucket = flow;
	flows->n_of_source[source]++;
	flows->counters.flows++;
	flows->counters.flows_now++;
	flows->counters.sniffing_now += state == QUIC_FLOW_SNIFFING;
	quic_flow_begin(&flow->fsm, state, now_ms);
	set_place(flows, flow);
	return flow;
}

static void join_connection(struct quic_flow *flow, struct quic_connection *connection)
{
	flow->connection = connection;
	flow->first = connection->first;
	link_put_last(&connection->flows, &flow->of_connection);
	connection->n_flows++;
}

/* ---- who comes anew ---- */

static bool keep(struct quic_flows *flows, struct quic_sniffing *sniffing, const uint8_t *datagram, size_t len)
{
	size_t size = sniffing->size > 0 ? sniffing->size : FIRST_KEPT;

	while (size < sniffing->used + len)
		size *= 2;
	if (size > MAX_KEPT || sniffing->n == QUIC_MAX_DATAGRAMS)
		return false;
	if (size > sniffing->size) {
		flows->counters.kept_bytes_now += size - sniffing->size;
		sniffing->bytes = realloc(sniffing->bytes, size);
		if (!sniffing->bytes)
			abort();
		sniffing->size = size;
	}
	memcpy(sniffing->bytes + sniffing->used, datagram, len);
	sniffing->used += len;
	sniffing->lens[sniffing->n++] = len;
	return true;
}

/* Many who begin and do not go on: those who did so longest ago are ended, and perhaps this one. */
static void keep_within_memory(struct quic_flows *flows)
{
	const struct link *first;

	while (flows->counters.kept_bytes_now > flows->options.max_kept_bytes && (first = link_first(&flows->kept))) {
		flows->counters.over_limit++;
		quic_flows_end(flows, container_of(first, struct quic_sniffing, among_kept)->flow);
	}
}

/* From now on it has a place of its own for what comes. */
static void keep_first(struct quic_flows *flows, struct quic_flow *flow, const uint8_t *datagram, size_t len)
{
	struct quic_sniffing *sniffing = malloc(sizeof(*sniffing));

	if (!sniffing)
		abort();
	*sniffing = (struct quic_sniffing){ .initial = flows->first.initial, .flow = flow };
	flows->counters.kept_bytes_now += sizeof(*sniffing);
	link_put_last(&flows->kept, &sniffing->among_kept);
	flow->sniffing = sniffing;
}

static enum quic_verdict refuse(struct quic_flows *flows, enum sniffer_reason reason)
{
	flows->counters.refused[reason]++;
	return QUIC_DROPPED;
}

/* What costs more than passing on: packets to be opened, sockets for paths. */
static bool may_open(struct quic_flows *flows, const struct udp_way *way, uint64_t now_ms)
{
	if (source_limit_take(&flows->hellos_of, &way->remote, now_ms) && take_of_rate(&flows->hellos, now_ms))
		return true;
	flows->counters.over_rate++;
	return false;
}

static enum quic_verdict read_more(struct quic_flows *flows, struct quic_flow *flow, const uint8_t *datagram,
				   size_t len, uint64_t now_ms, struct quic_flow **ret)
{
	struct quic_sniffing *sniffing = flow->sniffing;
	enum sniffer_reason reason = SNIFFER_TOO_LONG;

	if (len >= QUIC_MIN_DATAGRAM && !may_open(flows, &flow->way, now_ms))
		return QUIC_DROPPED;
	flow->heard_bytes += len;
	switch (quic_initial_read(&sniffing->initial, datagram, len)) {
	case QUIC_FOUND:
		*ret = flow;
		return QUIC_LEAD;
	case QUIC_MORE:
		if (!keep(flows, sniffing, datagram, len))
			break;
		keep_within_memory(flows);
		return QUIC_KEPT;
	case QUIC_REFUSED:
		reason = sniffing->initial.reason;
		break;
	case QUIC_UNKNOWN_VERSION: /* not of who has begun */
		break;
	}
	quic_flows_end(flows, flow);
	return refuse(flows, reason);
}

static enum quic_verdict read_first(struct quic_flows *flows, const struct udp_way *way, const uint8_t *datagram,
				    size_t len, uint64_t now_ms, struct quic_flow **ret)
{
	struct quic_initial *initial = &flows->first.initial;

	if (flows->header.type == QUIC_INITIAL && len >= QUIC_MIN_DATAGRAM && !may_open(flows, way, now_ms))
		return QUIC_DROPPED;
	quic_initial_init(initial);
	const enum quic_outcome outcome = quic_initial_read(initial, datagram, len);
	if (outcome != QUIC_MORE && outcome != QUIC_FOUND)
		return refuse(flows, initial->reason);
	struct quic_flow *flow = begin(flows, way, QUIC_FLOW_SNIFFING, now_ms);
	if (!flow)
		return QUIC_DROPPED;
	flow->first = quic_id_from(&flows->header.destination);
	flow->heard_bytes = len;
	if (outcome == QUIC_FOUND) {
		flow->sniffing = &flows->first;
		*ret = flow;
		return QUIC_LEAD;
	}
	keep_first(flows, flow, datagram, len);
	if (!keep(flows, flow->sniffing, datagram, len)) {
		quic_flows_end(flows, flow);
		return refuse(flows, SNIFFER_TOO_LONG);
	}
	keep_within_memory(flows);
	return QUIC_KEPT;
}

static enum quic_verdict negotiate(struct quic_flows *flows, size_t len, uint64_t now_ms, struct quic_answer *ret)
{
	if (len < QUIC_MIN_DATAGRAM || !take_of_rate(&flows->negotiations, now_ms)) {
		flows->counters.not_negotiated++;
		return QUIC_DROPPED;
	}
	ret->len = quic_encode_negotiation(&flows->header, ret->bytes, sizeof(ret->bytes));
	assert(ret->len > 0 && ret->len < len);
	flows->counters.negotiated++;
	return QUIC_NEGOTIATE;
}

/* Of the paths of a connection one that was not answered goes for the next, else the one that is silent longest. */
static bool make_room_of(struct quic_flows *flows, struct quic_connection *connection, uint64_t now_ms)
{
	struct quic_flow *best = NULL;

	for (struct link *at = connection->flows.after; at != &connection->flows; at = at->after) {
		struct quic_flow *flow = container_of(at, struct quic_flow, of_connection);
		const bool is_asked = flow->fsm.state == QUIC_FLOW_ASKED;
		const bool best_is = best && best->fsm.state == QUIC_FLOW_ASKED;
		if (now_ms < flow->fsm.since_ms + PATH_SILENT_MS)
			continue;
		if (!best || (is_asked && !best_is) || (is_asked == best_is && flow->fsm.since_ms < best->fsm.since_ms))
			best = flow;
	}
	if (best)
		quic_flows_end(flows, best);
	return best != NULL;
}

/* A connection that is known, from where it was not before. */
static enum quic_verdict move(struct quic_flows *flows, struct quic_connection *connection, const struct udp_way *way,
			      size_t len, uint64_t now_ms, struct quic_flow **ret)
{
	if (!may_open(flows, way, now_ms))
		return QUIC_DROPPED;
	const bool is_over = connection->n_flows >= flows->options.max_paths;
	flows->counters.over_paths += is_over;
	connection->n_flows++; /* it stays, even if its only path has to make room for this one */
	const bool has_room = !is_over || make_room_of(flows, connection, now_ms);
	struct quic_flow *flow = has_room ? begin(flows, way, QUIC_FLOW_ASKED, now_ms) : NULL;
	if (flow)
		join_connection(flow, connection);
	let_go(flows, connection);
	if (!flow)
		return QUIC_DROPPED;
	flow->heard_bytes = len;
	flows->counters.moved++;
	*ret = flow;
	return QUIC_MOVED;
}

/* ---- who is known ---- */

/* named: which of the target's IDs; NULL: none. */
static enum quic_verdict pass(struct quic_flows *flows, struct quic_flow *flow, const struct quic_known_id *named,
			      size_t len, uint64_t now_ms, struct quic_flow **ret)
{
	struct quic_connection *connection = flow->connection;

	take_event(flows, flow, named && named->is_proof ? QUIC_FLOW_PROOF : QUIC_FLOW_FROM_VISITOR, now_ms);
	flow->heard_bytes += len;
	if (flow->fsm.state == QUIC_FLOW_PROVEN && connection->proven != flow) {
		if (connection->proven)
			take_event(flows, connection->proven, QUIC_FLOW_OVERTAKEN, now_ms);
		connection->proven = flow;
	}
	flow->is_not_to_be_proven = flow->fsm.state == QUIC_FLOW_ANSWERED && connection->n_ids > 0 &&
				    !quic_connection_can_be_proven(connection);
	*ret = flow;
	return QUIC_PASS;
}

/* Of those at one address, which have the connections that begin with these bytes, or are known best. */
static struct quic_flow *find_short(const struct quic_flows *flows, const struct udp_way *way, const uint8_t *id,
				    size_t len, const struct quic_known_id **ret_named)
{
	struct quic_flow *best = NULL;

	*ret_named = NULL;
	for (struct quic_flow *flow = *bucket_of(flows, way); flow; flow = flow->next) {
		if (!flow->connection || !is_same_way(&flow->way, way))
			continue;
		if ((*ret_named = quic_connection_find_prefix(flow->connection, id, len)))
			return flow;
		if (!best || flow->fsm.state > best->fsm.state ||
		    (flow->fsm.state == best->fsm.state && flow->fsm.since_ms > best->fsm.since_ms))
			best = flow;
	}
	return best;
}

static enum quic_verdict take_short(struct quic_flows *flows, const struct udp_way *way, const uint8_t *datagram,
				    size_t len, uint64_t now_ms, struct quic_flow **ret)
{
	const struct quic_known_id *named;
	struct quic_flow *flow = find_short(flows, way, datagram + 1, len - 1, &named);

	if (named)
		return pass(flows, flow, named, len, now_ms, ret);
	struct quic_connection *connection = quic_ids_find_prefix(&flows->ids, datagram + 1, len - 1,
								  flow ? QUIC_MIN_CERTAIN : QUIC_MIN_KNOWN);
	if (connection && move(flows, connection, way, len, now_ms, ret) == QUIC_MOVED)
		return QUIC_MOVED;
	if (connection && !flow)
		return QUIC_DROPPED;
	if (flow) /* an ID that was handed out under encryption */
		return pass(flows, flow, NULL, len, now_ms, ret);
	flows->counters.stray++;
	return QUIC_DROPPED;
}

static struct quic_flow *find_long(const struct quic_flows *flows, const struct udp_way *way, const struct quic_id *id)
{
	for (struct quic_flow *flow = *bucket_of(flows, way); flow; flow = flow->next)
		if (is_same_way(&flow->way, way) &&
		    (quic_id_equal(&flow->first, id) || (flow->connection && quic_connection_find(flow->connection, id))))
			return flow;
	return NULL;
}

static enum quic_verdict take_long(struct quic_flows *flows, const struct udp_way *way, const uint8_t *datagram,
				   size_t len, uint64_t now_ms, struct quic_flow **ret, struct quic_answer *ret_answer)
{
	const bool is_known_version = flows->header.type != QUIC_OTHER_VERSION;
	const struct quic_id id = quic_id_from(&flows->header.destination);
	struct quic_flow *flow = is_known_version ? find_long(flows, way, &id) : NULL;
	struct quic_connection *connection = NULL;

	if (!is_known_version)
		return negotiate(flows, len, now_ms, ret_answer);
	if (flow && !flow->connection)
		return read_more(flows, flow, datagram, len, now_ms, ret);
	if (flow)
		return pass(flows, flow, quic_connection_find(flow->connection, &id), len, now_ms, ret);
	if (id.len >= QUIC_MIN_KNOWN && (connection = quic_ids_find(&flows->ids, &id)))
		return move(flows, connection, way, len, now_ms, ret);
	return read_first(flows, way, datagram, len, now_ms, ret);
}

enum quic_verdict quic_flows_from_visitor(struct quic_flows *flows, const struct udp_way *way, const uint8_t *datagram,
					  size_t len, uint64_t now_ms, struct quic_flow **ret,
					  struct quic_answer *ret_answer)
{
	if (len > 0 && (datagram[0] & 0x80) == 0)
		return take_short(flows, way, datagram, len, now_ms, ret);
	if (quic_header_decode(datagram, len, &flows->header) != 0 || flows->header.type == QUIC_NEGOTIATION)
		return refuse(flows, SNIFFER_QUIC_PACKET);
	return take_long(flows, way, datagram, len, now_ms, ret, ret_answer);
}

static bool may_answer(struct quic_flows *flows, struct quic_flow *flow, size_t len)
{
	if (flow->fsm.state == QUIC_FLOW_PROVEN || flow->is_not_to_be_proven)
		return true;
	if (flow->answered_bytes + len > QUIC_ANSWER_FACTOR * flow->heard_bytes) {
		flows->counters.over_answer++;
		return false;
	}
	flow->answered_bytes += len;
	return true;
}

static void learn(struct quic_flows *flows, struct quic_flow *flow, const uint8_t *datagram, size_t len)
{
	if (len == 0 || (datagram[0] & 0x80) == 0 || quic_header_decode(datagram, len, &flows->header) != 0)
		return;
	if (flows->header.type == QUIC_NEGOTIATION || flows->header.type == QUIC_OTHER_VERSION)
		return;
	const struct quic_id id = quic_id_from(&flows->header.source);
	quic_ids_learn(&flows->ids, flow->connection, &id);
}

bool quic_flows_from_target(struct quic_flows *flows, struct quic_flow *flow, const uint8_t *datagram, size_t len,
			    uint64_t now_ms)
{
	take_event(flows, flow, QUIC_FLOW_FROM_TARGET, now_ms);
	learn(flows, flow, datagram, len);
	return may_answer(flows, flow, len);
}

/* ---- who is led ---- */

const struct sniffed *quic_flows_found(const struct quic_flow *flow)
{
	return &flow->sniffing->initial.found;
}

const uint8_t *quic_flows_kept(const struct quic_flow *flow, uint32_t i, size_t *ret_len)
{
	const struct quic_sniffing *sniffing = flow->sniffing;
	size_t at = 0;

	if (sniffing->is_shared || i >= sniffing->n)
		return NULL;
	for (uint32_t j = 0; j < i; j++)
		at += sniffing->lens[j];
	*ret_len = sniffing->lens[i];
	return sniffing->bytes + at;
}

void quic_flows_led(struct quic_flows *flows, struct quic_flow *flow, const struct endpoint *target, uint64_t now_ms)
{
	struct quic_connection *connection = calloc(1, sizeof(*connection));

	if (!connection)
		abort();
	connection->target = *target;
	connection->first = flow->first;
	link_init_ring(&connection->flows);
	free_sniffing(flows, flow);
	join_connection(flow, connection);
	flows->counters.connections_now++;
	flows->counters.led++;
	take_event(flows, flow, QUIC_FLOW_LED, now_ms);
}

/* ---- time ---- */

uint64_t quic_flows_expire(struct quic_flows *flows, uint64_t now_ms)
{
	uint64_t next_ms = UINT64_MAX;

	for (int state = 0; state < QUIC_FLOW_N_STATES; state++) {
		struct link *first;
		while ((first = link_first(&flows->states[state]))) {
			struct quic_flow *flow = container_of(first, struct quic_flow, place);
			const uint64_t due_ms = quic_flow_due_ms(&flow->fsm, &flows->options.times);
			if (due_ms > now_ms) {
				next_ms = due_ms < next_ms ? due_ms : next_ms;
				break;
			}
			flows->counters.too_slow += state == QUIC_FLOW_SNIFFING;
			flows->counters.ended_silent += state != QUIC_FLOW_SNIFFING;
			quic_flows_end(flows, flow);
		}
	}
	return next_ms;
}

/* ---- beginning and end ---- */

struct quic_flows *quic_flows_new(const struct quic_flows_options *options, uint64_t now_ms)
{
	struct quic_flows *flows = calloc(1, sizeof(*flows));

	if (!flows)
		abort();
	flows->options = *options;
	flows->n_buckets = 1;
	while (flows->n_buckets < options->max_flows)
		flows->n_buckets *= 2;
	flows->buckets = calloc(flows->n_buckets, sizeof(struct quic_flow *));
	if (!flows->buckets)
		abort();
	quic_ids_init(&flows->ids, options->max_flows);
	for (int state = 0; state < QUIC_FLOW_N_STATES; state++)
		link_init_ring(&flows->states[state]);
	link_init_ring(&flows->kept);
	flows->hellos = (struct rate){ .per_s = options->hellos_per_s, .at_ms = now_ms };
	flows->negotiations = (struct rate){ .per_s = options->negotiations_per_s, .at_ms = now_ms };
	flows->hellos.thousandths = flows->negotiations.thousandths = UINT64_C(1) << 32; /* full: cut at once */
	source_limit_init(&flows->hellos_of, options->hellos_source_per_s, 2 * options->hellos_source_per_s);
	flows->hellos_of.is_each_v4 = true;
	crypto_shorthash_keygen(flows->seed);
	flows->first.is_shared = true;
	return flows;
}

void quic_flows_free(struct quic_flows *flows)
{
	struct link *first;

	if (!flows)
		return;
	for (int state = 0; state < QUIC_FLOW_N_STATES; state++)
		while ((first = link_first(&flows->states[state])))
			quic_flows_end(flows, container_of(first, struct quic_flow, place));
	quic_ids_free(&flows->ids);
	free(flows->buckets);
	free(flows);
}

struct quic_counters *quic_flows_counters(struct quic_flows *flows)
{
	return &flows->counters;
}
