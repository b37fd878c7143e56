/* Visitors: each has a place, by its state and since when, and costs something that has a bound. */
#include "relay/frontdoor/door_thread_internal.h"

#include "common/spawn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* ---- who is there ---- */

uint16_t door_source_of(const struct door_thread *door, const struct endpoint *remote)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint16_t index;

	crypto_shorthash(hash, remote->ip, endpoint_is_v4(remote) ? 16 : 7, door->seed);
	memcpy(&index, hash, sizeof(index));
	return index;
}

static void set_state(struct visitor *visitor, enum visitor_state state)
{
	visitor->door->n_in[visitor->state]--;
	visitor->door->n_in[state]++;
	visitor->state = (uint8_t)state;
}

void visitor_place(struct visitor *visitor, enum visitor_state state, struct link *ring)
{
	set_state(visitor, state);
	visitor->since_ms = visitor->door->now_ms;
	link_put_last(ring, &visitor->place);
}

void visitor_begin_pump(struct visitor *visitor)
{
	link_remove(&visitor->place);
	visitor_set_kept(visitor, 0); /* who is pumped is not turned away for it */
	set_state(visitor, PUMPED);
	splice_pair_begin(visitor->door->pump, &visitor->pair, visitor->door->now_ms);
}

void visitor_resume_pump(struct visitor *visitor, uint64_t quiet_ms)
{
	link_remove(&visitor->place);
	set_state(visitor, PUMPED);
	splice_pair_resume(visitor->door->pump, &visitor->pair, quiet_ms, visitor->door->now_ms);
}

void visitor_set_kept(struct visitor *visitor, size_t n)
{
	struct door_thread *door = visitor->door;

	door->kept_bytes += n;
	door->kept_bytes -= visitor->n_kept;
	visitor->n_kept = (uint32_t)n;
	if (n == 0)
		link_remove(&visitor->among_kept);
	else if (!link_is_in_ring(&visitor->among_kept))
		link_put_last(&door->kept, &visitor->among_kept);
}

void visitor_free_hello(struct visitor *visitor)
{
	visitor_set_kept(visitor, 0);
	if (visitor->hello)
		free(visitor->hello->bytes);
	free(visitor->hello);
	visitor->hello = NULL;
}

struct visitor *visitor_new(struct door_thread *door, int fd, const struct endpoint *remote, uint16_t source)
{
	struct visitor *visitor = calloc(1, sizeof(*visitor));

	if (!visitor)
		abort();
	visitor->door = door;
	visitor->remote = *remote;
	visitor->source = source;
	visitor->pair.ends[0].fd = fd;
	visitor->pair.ends[0].watch.happened = visitor_on_event;
	visitor->pair.ends[0].is_prompt = true; /* as its listener is */
	visitor->pair.ends[1].fd = -1;
	door->n_of_source[source]++;
	door->counters.visitors_now++;
	link_put_last(&door->all, &visitor->among_all);
	door->n_in[SNIFFING]++;
	visitor_place(visitor, SNIFFING, &door->sniffing);
	return visitor;
}

int door_watch(struct door_thread *door, int fd, struct watch *watch, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = watch };

	return epoll_ctl(door->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* Edges that came before do not matter: what is there at this moment is told as one. */
int visitor_watch(struct visitor *visitor)
{
	int r = 0;

	if (!visitor->is_watched)
		r = door_watch(visitor->door, visitor->pair.ends[0].fd, &visitor->pair.ends[0].watch, SPLICE_EVENTS);
	visitor->is_watched = r == 0;
	return r;
}

/* ---- doors that have a connection before its visitor ---- */

static uint32_t n_silent_of(const struct door_thread *door, uint16_t source)
{
	uint32_t n = 0;

	for (const struct link *at = door->silent.after; at != &door->silent; at = at->after)
		n += container_of(at, struct visitor, place)->source == source;
	return n;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Where places are few, most are for who has a visitor. */
void visitor_may_be_silent(struct visitor *visitor)
{
	struct door_thread *door = visitor->door;
	const uint32_t max = smaller(DOOR_MAX_SILENT, door->options.max_visitors / 8);
	const uint32_t max_of_one = smaller(DOOR_MAX_SILENT_OF_ONE, door->options.max_visitors_source / 4);

	if (door->n_silent >= max || n_silent_of(door, visitor->source) >= max_of_one)
		return;
	visitor->is_silent = true;
	door->n_silent++;
	link_put_last(&door->silent, &visitor->place);
}

void visitor_is_heard(struct visitor *visitor)
{
	if (!visitor->is_silent)
		return;
	visitor->is_silent = false;
	visitor->door->n_silent--;
	visitor_place(visitor, SNIFFING, &visitor->door->sniffing);
}

void door_cut_silent(struct door_thread *door)
{
	struct link *at = door->silent.after, *next;

	for (; at != &door->silent; at = next) {
		struct visitor *visitor = container_of(at, struct visitor, place);
		next = at->after;
		if (door->routes && door_routes_has_door(door->routes, &visitor->remote))
			continue;
		visitor_turn_away(visitor);
	}
}

/* ---- how they go ---- */

void visitor_forget(struct visitor *visitor)
{
	struct door_thread *door = visitor->door;

	visitor_leave_gate(visitor);
	visitor_end_dial(visitor, false);
	if (visitor->tally)
		atomic_fetch_sub_explicit(&visitor->tally->open, 1, memory_order_relaxed);
	visitor->tally = NULL;
	visitor_free_hello(visitor);
	visitor_leave_place(visitor);
	visitor_is_heard(visitor);
	free(visitor->host);
	visitor->host = NULL;
	door->n_of_source[visitor->source]--;
	door->counters.visitors_now--;
	link_remove(&visitor->among_all);
	visitor_place(visitor, GONE, &door->gone);
}

void visitor_turn_away(struct visitor *visitor)
{
	for (int i = 0; i < 2; i++)
		if (visitor->pair.ends[i].fd >= 0)
			splice_close_with_reset(visitor->pair.ends[i].fd);
	splice_pair_drop_head(&visitor->pair); /* of who is CONNECTING */
	visitor_forget(visitor);
}

void visitor_cut(struct visitor *visitor)
{
	if (visitor->state != PUMPED) {
		visitor_turn_away(visitor);
		return;
	}
	splice_pair_cut(visitor->door->pump, &visitor->pair);
	visitor_forget(visitor);
}

void visitor_turn_away_for_want(struct visitor *visitor)
{
	visitor->door->counters.no_descriptors++;
	door_close_warm(visitor->door);
	visitor_turn_away(visitor);
}

void door_on_pair_ended(void *owner, struct splice_pair *pair, enum splice_outcome outcome)
{
	struct door_thread *door = owner;

	struct visitor *visitor = container_of(pair, struct visitor, pair);

	door->counters.done += outcome == SPLICE_DONE;
	door->counters.reset += outcome == SPLICE_RESET;
	door->counters.timed_out += outcome == SPLICE_TIMED_OUT;
	visitor_judge_place(visitor, outcome == SPLICE_DONE);
	visitor_judge_agent(visitor);
	visitor_forget(visitor);
}

/* Kept until some turn after that; children that are started one after the other keep nobody for longer. */
bool door_may_free(const struct door_thread *door, uint64_t gone_ms)
{
	return door->is_over || gone_ms + SPAWN_REST_MS <= door->now_ms || !spawn_has_copies(door->now_ms);
}

void door_free_gone(struct door_thread *door)
{
	struct link *first;

	while ((first = link_first(&door->gone))) {
		struct visitor *visitor = container_of(first, struct visitor, place);
		if (!door_may_free(door, visitor->since_ms))
			return;
		door->n_in[GONE]--;
		link_remove(first);
		free(visitor);
	}
}

void door_end_all(struct door_thread *door)
{
	struct link *first;

	while ((first = link_first(&door->all)))
		visitor_cut(container_of(first, struct visitor, among_all));
	door_free_gone(door);
}

/* ---- bounds ---- */

static uint64_t n_let_in(const struct door_thread *door)
{
	return door->counters.visitors_now - door->n_in[SNIFFING];
}

/*
 * So that there is a place below max for one more who is let in. Where all are taken, the relay's as well, who has not said yet
 * whom it wants goes, unless no place comes of it: for nothing nobody has to go.
 */
static bool make_place(struct door_thread *door, uint64_t max)
{
	const uint64_t n_places = (uint64_t)door->options.max_visitors + door->relay_places;
	struct link *first;

	if (n_let_in(door) >= max)
		return false;
	while (door->counters.visitors_now >= n_places &&
	       ((first = link_first(&door->silent)) || (first = link_first(&door->sniffing)))) {
		struct visitor *visitor = container_of(first, struct visitor, place);
		door->counters.over_limit += !visitor->is_silent; /* a door without a visitor is none */
		visitor_turn_away(visitor);
	}
	return true;
}

bool door_has_place(struct door_thread *door, uint16_t source, bool is_at_relays)
{
	const uint64_t max = (uint64_t)door->options.max_visitors + (is_at_relays ? door->relay_places : 0);
	const uint64_t max_source = (uint64_t)door->options.max_visitors_source + (is_at_relays ? RELAY_PLACES_SOURCE : 0);

	if (door->n_of_source[source] >= max_source) {
		door->counters.over_source_limit++;
		return false;
	}
	if (make_place(door, max))
		return true;
	door->counters.over_limit++;
	return false;
}

static bool is_within_source_limit(const struct visitor *visitor)
{
	const struct door_thread *door = visitor->door;

	return !visitor->is_at_relays || door->n_of_source[visitor->source] <= door->options.max_visitors_source;
}

/* With the relay's places more are asked in than may be let in, at every port. */
static bool is_within_limit(const struct door_thread *door)
{
	return door->relay_places == 0 || n_let_in(door) < door->options.max_visitors;
}

bool visitor_may_linger(const struct visitor *visitor)
{
	return is_within_source_limit(visitor) && is_within_limit(visitor->door);
}

bool visitor_keeps_place(struct visitor *visitor)
{
	struct door_thread *door = visitor->door;

	if (!is_within_source_limit(visitor))
		door->counters.over_source_limit++;
	else if (!is_within_limit(door))
		door->counters.over_limit++;
	else
		return true;
	return false;
}

void door_keep_within_memory(struct door_thread *door)
{
	const struct link *first;

	while (door->kept_bytes > door->options.max_hello_bytes && (first = link_first(&door->kept))) {
		struct visitor *visitor = container_of(first, struct visitor, among_kept);
		if (visitor->state == ANSWERING) { /* it is served: only that there is another is no longer for it */
			visitor_stay(visitor);
			continue;
		}
		door->counters.over_limit++;
		visitor_turn_away(visitor);
	}
}

uint64_t door_expire(struct door_thread *door, const struct link *ring, uint64_t time_ms, uint64_t *counter)
{
	const struct link *first;

	while ((first = link_first(ring))) {
		struct visitor *visitor = container_of(first, struct visitor, place);
		if (visitor->since_ms + time_ms > door->now_ms)
			return visitor->since_ms + time_ms;
		(*counter)++;
		if ((visitor->state == CONNECTING || visitor->state == WAITING) && visitor->gate && !visitor->is_at_sink)
			door_gate_not_reached(visitor->gate);
		if (visitor->state == CONNECTING)
			visitor_place_failed(visitor);
		visitor_turn_away(visitor);
	}
	return UINT64_MAX;
}
