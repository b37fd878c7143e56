/*
 * Streams that outlive their door. Who is PUMPED, and whole, goes to the next door with both sockets and what waits between
 * them; who is still SNIFFING with what came of him. All others end with this door: who waits for a target or an agent, who
 * has been refused, of which one end broke, and who is served in this process (door_sink.h).
 *
 *   PUMPED ────► put ──► queue ──► take ──► [limits, its host is still led somewhere] ──► PUMPED
 *   SNIFFING ──► put ──► queue ──► take ──► [limits] ──► SNIFFING, from its first byte
 *   what is not taken up ─────────────────────┴────► reset, and counted
 *
 * A host of webgw that a member has by its grant is no route before its agent is back: its visitors are taken up while the
 * grant is there (door_routes_set_awaited()), and no wildcard stands for it.
 *
 * What is read is not believed: a descriptor is used for what it is, or closed.
 */
#include "relay/frontdoor/door_thread_internal.h"

#include "relay/frontdoor/port_name.h"
#include "relay/frontdoor/stream_queue.h"
#include "relay/frontdoor/stream_wire.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_MESSAGES (2 * 65536) /* in a queue: more than a door has visitors */

/* A message and its descriptors, on their way. */
struct parcel {
	struct stream_said said;
	int fds[STREAM_MAX_FDS];
	size_t n_fds;
	uint8_t bytes[STREAM_MAX_MESSAGE];
};

void visitor_note_host(struct visitor *visitor, const struct sniffed *found)
{
	visitor->protocol = (uint8_t)found->protocol;
	free(visitor->host);
	visitor->host = strdup(found->host.text);
	if (!visitor->host)
		abort();
}

static struct parcel *new_parcel(void)
{
	struct parcel *parcel = calloc(1, sizeof(*parcel));

	if (!parcel)
		abort();
	return parcel;
}

/* ---- to the door that runs next ---- */

static bool put(struct stream_queue *queue, struct parcel *parcel)
{
	const size_t n = stream_encode(&parcel->said, parcel->bytes);

	return stream_queue_put(queue, parcel->bytes, n, parcel->fds, parcel->n_fds) == 0;
}

static uint32_t milliseconds(uint64_t ms)
{
	return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

static void say_visitor(const struct visitor *visitor, uint64_t quiet_ms, struct parcel *parcel)
{
	parcel->said = (struct stream_said){ .remote = visitor->remote, .quiet_ms = milliseconds(quiet_ms),
					     .n_doors = visitor->n_doors, .is_at_relays = visitor->is_at_relays };
	parcel->n_fds = 0;
}

static void add_fd(struct parcel *parcel, int fd)
{
	parcel->fds[parcel->n_fds++] = fd;
}

static void say_flow(const struct splice_saved *saved, int i, struct parcel *parcel)
{
	const struct pump_flow *state = &saved->flows[i].state;

	parcel->said.flows[i] = (struct stream_flow){ .waiting = (uint32_t)state->waiting,
						      .is_in_pipe = saved->flows[i].pipe_out >= 0,
						      .has_ended = state->has_ended,
						      .is_cut_off = state->is_cut_off,
						      .is_done = state->is_done,
						      .is_finished = saved->flows[i].is_finished,
						      .is_bulk = saved->flows[i].is_bulk,
						      .n_bytes = saved->flows[i].n_bytes,
						      .head = saved->flows[i].head };
	if (saved->flows[i].pipe_out < 0)
		return;
	add_fd(parcel, saved->flows[i].pipe_out);
	add_fd(parcel, saved->flows[i].pipe_in);
}

/* False: so much waits in memory that no door would take it. */
static bool say_carried(const struct visitor *visitor, const struct splice_saved *saved, struct parcel *parcel)
{
	say_visitor(visitor, saved->quiet_ms, parcel);
	parcel->said.kind = STREAM_CARRIED;
	parcel->said.protocol = (enum sniffer_protocol)visitor->protocol;
	parcel->said.is_members = visitor->gate && visitor->gate->is_members;
	if (visitor->host && port_or_host_from(visitor->host, strlen(visitor->host), &parcel->said.host) != 0)
		return false;
	for (int i = 0; i < 2; i++) {
		parcel->said.ends[i] = (struct stream_end){ .is_urgent = saved->ends[i].is_urgent,
							    .is_broken = saved->ends[i].is_broken,
							    .is_prompt = saved->ends[i].is_prompt };
		add_fd(parcel, saved->ends[i].fd);
	}
	for (int i = 0; i < 2; i++) {
		if (saved->flows[i].pipe_out < 0 && saved->flows[i].state.waiting > STREAM_MAX_KEPT)
			return false;
		say_flow(saved, i, parcel);
	}
	return true;
}

/* Nobody takes it up: then it ends as it would have with this door. */
static void reset_on_close(const struct parcel *parcel, bool resets)
{
	for (size_t i = 0; i < parcel->n_fds && i < 2; i++)
		stream_set_reset_on_close(parcel->fds[i], resets);
}

static bool put_carried(struct visitor *visitor, struct stream_queue *queue, struct parcel *parcel)
{
	struct splice_saved saved;

	if (visitor->ends_here)
		return false; /* TLS, with keys that nobody else has */
	splice_pair_save(&visitor->pair, visitor->door->now_ms, &saved);
	if (!say_carried(visitor, &saved, parcel))
		return false;
	reset_on_close(parcel, true);
	return put(queue, parcel);
}

static uint32_t put_all_carried(struct door_thread *door, struct stream_queue *queue, struct parcel *parcel)
{
	struct splice_pair *pair;
	uint32_t n = 0;

	for (int half = 0; half < 2; half++)
		while ((pair = splice_pump_quietest(door->pump, half == 1))) {
			struct visitor *visitor = container_of(pair, struct visitor, pair);
			if (!put_carried(visitor, queue, parcel)) {
				visitor_cut(visitor);
				continue;
			}
			splice_pair_let_go(door->pump, pair);
			visitor_forget(visitor);
			n++;
		}
	return n;
}

/* They are served, and only whether they would have another place was kept open. */
static void settle_answering(struct door_thread *door)
{
	struct link *first;

	while ((first = link_first(&door->answering)) || (first = link_first(&door->holding)))
		visitor_stay(container_of(first, struct visitor, place));
}

static uint32_t put_all_sniffed(struct door_thread *door, struct stream_queue *queue, struct parcel *parcel)
{
	struct link *first;
	uint32_t n = 0;

	while ((first = link_first(&door->sniffing))) {
		struct visitor *visitor = container_of(first, struct visitor, place);
		say_visitor(visitor, door->now_ms - visitor->since_ms, parcel);
		parcel->said.kind = STREAM_SNIFFED;
		parcel->said.bytes = visitor->hello ? visitor->hello->bytes : NULL;
		parcel->said.n_bytes = visitor->hello ? visitor->hello->n : 0;
		add_fd(parcel, visitor->pair.ends[0].fd);
		reset_on_close(parcel, true);
		if (parcel->said.n_bytes > SNIFFER_MAX || !put(queue, parcel)) {
			visitor_turn_away(visitor);
			continue;
		}
		close(visitor->pair.ends[0].fd);
		visitor->pair.ends[0].fd = -1;
		visitor_forget(visitor);
		n++;
	}
	return n;
}

void door_thread_hand_streams_over(struct door_thread *door, struct stream_queue *queue)
{
	const uint64_t n_there = door->counters.visitors_now - door->n_in[LINGERING]; /* these have had their answer */
	struct parcel *parcel = new_parcel();
	uint32_t n = 0;

	parcel->said = (struct stream_said){ .kind = STREAM_FIRST, .saved_ms = door->now_ms };
	settle_answering(door);
	if (put(queue, parcel)) {
		n += put_all_carried(door, queue, parcel);
		n += put_all_sniffed(door, queue, parcel);
	}
	const uint32_t n_left = (uint32_t)(n_there - n);
	*parcel = (struct parcel){ .said = { .kind = STREAM_LAST, .n_handed = n, .n_left = n_left } };
	(void)put(queue, parcel); /* without it the next door knows those that it has */
	free(parcel);
	if (n_there > 0)
		log_info("frontdoor", "visitors left for the door that runs next: %" PRIu32 ", and %" PRIu32 " that end", n, n_left);
}

/* ---- from the door that ran before ---- */

static bool are_descriptors_good(const struct parcel *parcel)
{
	const struct stream_said *said = &parcel->said;
	const size_t n_sockets = said->kind == STREAM_CARRIED ? 2 : 1;
	size_t at = n_sockets;

	if (parcel->n_fds != stream_count_fds(said))
		return false;
	for (size_t i = 0; i < n_sockets; i++)
		if (!stream_is_connected(parcel->fds[i]) || fcntl(parcel->fds[i], F_SETFL, O_RDWR | O_NONBLOCK) < 0)
			return false;
	for (int i = 0; i < 2 && said->kind == STREAM_CARRIED; i++)
		if (said->flows[i].is_in_pipe) {
			if (!stream_is_pipe(parcel->fds[at], parcel->fds[at + 1], said->flows[i].waiting))
				return false;
			at += 2;
		}
	return true;
}

/* Of those that come one after the other, the later one has been there for less. */
static uint64_t since(const struct door_thread *door, uint64_t quiet_ms)
{
	return quiet_ms < door->now_ms ? door->now_ms - quiet_ms : 0;
}

static struct visitor *take_visitor(struct door_thread *door, const struct parcel *parcel)
{
	const struct stream_said *said = &parcel->said;
	const bool is_relays = said->kind == STREAM_SNIFFED && said->is_at_relays && door->for_relay;
	const uint16_t source = door_source_of(door, &said->remote);

	if (!door_has_place(door, source, is_relays))
		return NULL;
	struct visitor *visitor = visitor_new(door, parcel->fds[0], &said->remote, source);
	visitor->n_doors = said->n_doors;
	visitor->is_at_relays = is_relays;
	return visitor;
}

static void describe_pair(const struct parcel *parcel, struct splice_saved *ret)
{
	const struct stream_said *said = &parcel->said;
	size_t at = 2;

	*ret = (struct splice_saved){ 0 };
	for (int i = 0; i < 2; i++) {
		const struct stream_flow *flow = &said->flows[i];
		ret->ends[i].fd = parcel->fds[i];
		ret->ends[i].is_urgent = said->ends[i].is_urgent;
		ret->ends[i].is_broken = said->ends[i].is_broken;
		ret->ends[i].is_prompt = said->ends[i].is_prompt;
		ret->flows[i].state = (struct pump_flow){ .waiting = flow->waiting, .has_ended = flow->has_ended,
							  .is_cut_off = flow->is_cut_off, .is_done = flow->is_done };
		ret->flows[i].pipe_out = flow->is_in_pipe ? parcel->fds[at++] : -1;
		ret->flows[i].pipe_in = flow->is_in_pipe ? parcel->fds[at++] : -1;
		ret->flows[i].head = flow->head;
		ret->flows[i].is_bulk = flow->is_bulk;
		ret->flows[i].is_finished = flow->is_finished;
		ret->flows[i].n_bytes = flow->n_bytes;
	}
}

/* It is the pump's when both ends are watched. False: descriptors have run out, and it is gone. */
static bool resume(struct visitor *visitor, const struct parcel *parcel, uint64_t quiet_ms)
{
	struct door_thread *door = visitor->door;
	struct splice_saved saved;
	int r = 0;

	describe_pair(parcel, &saved);
	splice_pair_set(door->pump, &visitor->pair, &saved);
	visitor->told_in = visitor->pair.flows[0].n_bytes;
	visitor->told_out = visitor->pair.flows[1].n_bytes;
	for (int i = 0; i < 2 && r == 0; i++)
		r = door_watch(door, visitor->pair.ends[i].fd, &visitor->pair.ends[i].watch, SPLICE_EVENTS_OF_FULL);
	visitor->is_watched = r == 0;
	if (r < 0) {
		splice_pair_unset(door->pump, &visitor->pair);
		visitor_turn_away_for_want(visitor);
		return false;
	}
	visitor_resume_pump(visitor, quiet_ms);
	return true;
}

/* NULL: it is led nowhere any more, or its operator has taken the port away meanwhile. */
static const struct door_route *route_of(const struct door_thread *door, const struct stream_said *said)
{
	struct port_name port;

	if (!door->routes || said->host.len == 0)
		return NULL;
	if (said->protocol == SNIFFER_TCP && !door->options.takes_header &&
	    (port_name_from(said->host.text, said->host.len, &port) != 0 || !door_may_open_port(door, &port)))
		return NULL;
	return door_routes_find(door->routes, said->protocol, &said->host);
}

/* NULL: no member has it any more, or somebody else has. */
static struct door_gate *awaited_gate(const struct door_thread *door, const struct stream_said *said)
{
	return door->routes ? door_routes_awaited_gate(door->routes, &said->host) : NULL;
}

/* Its descriptors are used up when true, also if it was turned away for another cause than `false` stands for. */
static bool take_carried(struct door_thread *door, const struct parcel *parcel, uint64_t quiet_ms)
{
	const struct stream_said *said = &parcel->said;
	const struct door_route *route = said->is_members ? NULL : route_of(door, said);
	struct door_gate *gate = said->is_members ? awaited_gate(door, said) : route ? route->gate : NULL;
	struct visitor *visitor = route || gate ? take_visitor(door, parcel) : NULL;

	if (!visitor)
		return false;
	reset_on_close(parcel, false);
	const struct sniffed found = { .protocol = said->protocol, .host = said->host };
	visitor_note_host(visitor, &found);
	if (gate)
		visitor_hold_gate(visitor, gate);
	if (resume(visitor, parcel, quiet_ms)) {
		door->counters.streams_taken++;
		if (route)
			visitor_find_place(visitor, route);
	} else {
		door->counters.streams_lost++;
	}
	return true;
}

static bool take_sniffed(struct door_thread *door, const struct parcel *parcel, uint64_t quiet_ms)
{
	const struct stream_said *said = &parcel->said;
	struct link *before = door->sniffing.before;
	const uint64_t before_ms = before != &door->sniffing ? container_of(before, struct visitor, place)->since_ms : 0;
	struct visitor *visitor = take_visitor(door, parcel);

	if (!visitor)
		return false;
	reset_on_close(parcel, false);
	visitor->since_ms = since(door, quiet_ms) > before_ms ? since(door, quiet_ms) : before_ms;
	door->counters.streams_taken++;
	visitor_sniff_again(visitor, said->bytes, said->n_bytes);
	if (visitor->state == SNIFFING && visitor_watch(visitor) < 0)
		visitor_turn_away_for_want(visitor);
	return true;
}

static void close_all(const struct parcel *parcel)
{
	for (size_t i = 0; i < parcel->n_fds; i++)
		close(parcel->fds[i]);
}

/* What one visitor has is taken up, or closed and counted. */
static void take_one(struct door_thread *door, const struct parcel *parcel, uint64_t gap_ms)
{
	const uint64_t quiet_ms = parcel->said.quiet_ms + gap_ms;
	bool is_taken = are_descriptors_good(parcel);

	if (is_taken && parcel->said.kind == STREAM_CARRIED)
		is_taken = take_carried(door, parcel, quiet_ms);
	else if (is_taken)
		is_taken = take_sniffed(door, parcel, quiet_ms);
	if (is_taken)
		return;
	close_all(parcel);
	door->counters.streams_lost++;
}

/* How long nobody carried anything. False: another format, or what is there is no queue of a door. */
static bool take_first(struct door_thread *door, struct stream_queue *queue, struct parcel *parcel, uint64_t *ret_gap_ms)
{
	size_t n;
	const int r = stream_queue_take(queue, parcel->bytes, sizeof(parcel->bytes), &n, parcel->fds, STREAM_MAX_FDS,
					&parcel->n_fds);

	if (r == -EAGAIN)
		return false; /* empty: there is nothing to say */
	if (r == 0 && stream_decode(parcel->bytes, n, &parcel->said) == 0 && parcel->said.kind == STREAM_FIRST &&
	    parcel->n_fds == 0 && parcel->said.saved_ms <= door->now_ms) {
		*ret_gap_ms = door->now_ms - parcel->said.saved_ms;
		return true;
	}
	if (r == 0)
		close_all(parcel);
	door->counters.streams_lost += stream_queue_drop(queue);
	log_warning("frontdoor", "what the door before has handed over is of another version: its visitors are reset");
	return false;
}

static void take_rest(struct door_thread *door, struct stream_queue *queue, struct parcel *parcel, uint64_t gap_ms)
{
	size_t n;

	for (int i = 0; i < MAX_MESSAGES; i++) {
		const int r = stream_queue_take(queue, parcel->bytes, sizeof(parcel->bytes), &n, parcel->fds,
						STREAM_MAX_FDS, &parcel->n_fds);
		if (r == -EAGAIN)
			return;
		if (r < 0 || stream_decode(parcel->bytes, n, &parcel->said) < 0) {
			if (r == 0)
				close_all(parcel);
			door->counters.streams_lost++;
		} else if (parcel->said.kind == STREAM_LAST || parcel->said.kind == STREAM_FIRST) {
			close_all(parcel);
			door->counters.streams_lost += parcel->said.n_left;
		} else {
			take_one(door, parcel, gap_ms);
		}
	}
}

void door_thread_take_streams(struct door_thread *door, struct stream_queue *queue)
{
	struct front_door_counters *counters = &door->counters;
	struct parcel *parcel = new_parcel();
	uint64_t gap_ms;

	if (take_first(door, queue, parcel, &gap_ms)) {
		take_rest(door, queue, parcel, gap_ms);
		if (counters->streams_taken > 0 || counters->streams_lost > 0)
			log_info("frontdoor", "visitors of the door that ran before: %" PRIu64 " go on, after %" PRIu64
				 " ms, and %" PRIu64 " are lost", counters->streams_taken, gap_ms, counters->streams_lost);
	}
	counters->streams_lost += stream_queue_drop(queue);
	free(parcel);
	door_free_gone(door);
	door->due_ms = door->now_ms; /* those that are quiet for long may be due */
}
