/*
 * Visitors whose owner has to dial back, and agents who do (docs/PROTOCOL-webgw.md):
 *
 *   visitor ─ its host is found ─► WAITING ──────────── dialled back ──► PUMPED
 *                                    │ wanted ▲ answer      ▲
 *                                    ▼        │             │ 32 bytes
 *                                   the loop ─┴─► agent ─► caller
 *
 * A visitor waits for dial_ms, a caller has present_ms for its secret; then each is reset. Who waits is in the table of
 * secrets, and is taken out of it whatever becomes of it: by visitor_end_dial(), through which all go.
 *
 * Of one source so many visitors may wait, so that nobody takes all of what an agent can bear; who leaves while an agent
 * is told of it counts on for a while, for the agent was told.
 *
 * Callers are bounded, in all and of one source; the one of them that said nothing for longest makes room. A source that
 * guesses secrets has few places for a while; it keeps some, for an agent may share its address with who guesses.
 */
#include "relay/frontdoor/door_thread_internal.h"

#include "relay/webgw/dial_back.h"
#include "relay/webgw/dial_exchange.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_WAITING_SOURCE (SUBSCRIPTIONS_MAX_PENDING / 4)
#define MAX_CALLERS	   1024
#define MAX_CALLERS_SOURCE 256
#define MAX_CALLERS_WRONG  8 /* of one that has guessed MAX_WRONG times in WRONG_MS */
#define CALLERS_A_TURN	64
#define MAX_WRONG	16
#define WRONG_MS	60000
#define RETRY_ACCEPT_MS 100
#define NO_TARGET_MS	10000 /* since it came */

struct caller {
	struct watch watch;
	struct door_dial_back *dial;
	struct link place; /* by since when; then with those who are gone */
	uint64_t since_ms;
	struct endpoint remote;
	int fd; /* -1: gone */
	uint16_t source;
	bool ends_here; /* as of a visitor */
	bool is_raw;	/* for who speaks TLS alone */
	uint8_t n;
	uint32_t n_sent; /* it has so much of what its visitor sent first */
	uint32_t n_answer;
	uint8_t *answer; /* what it said before, for its visitor; owned, NULL: nothing */
	uint8_t secret[DIAL_BACK_SECRET];
};

struct door_dial_back {
	struct door_thread *door;
	struct watch watch;
	int fd;
	uint64_t accept_again_ms; /* 0: callers are asked in */
	struct dial_exchange *exchange;
	struct link waiting; /* visitors */
	uint64_t forget_left_ms; /* when those who left count no more; 0: there are none */
	uint16_t n_waiting_of[DOOR_SOURCES]; /* by source; with those who left: */
	uint16_t n_left_of[DOOR_SOURCES];
	struct link callers, gone;
	uint32_t n_callers;
	uint16_t n_callers_of[DOOR_SOURCES];
	uint64_t forgive_ms; /* when all is forgotten of who guessed; 0: nobody has */
	uint8_t n_wrong[DOOR_SOURCES];
	struct dial_back table;
};

/* ---- visitors ---- */

static void take_answers(struct door_dial_back *dial)
{
	struct dial_answer answer;

	while (dial_exchange_take_answer(dial->exchange, &answer)) {
		struct visitor *visitor = dial_back_find(&dial->table, answer.ticket);
		if (!visitor) { /* it did not wait for the answer */
			dial_exchange_end(dial->exchange, answer.subscription, SUBSCRIPTIONS_LEFT);
			continue;
		}
		visitor->dial->is_answered = true;
		visitor->dial->subscription = answer.subscription;
		visitor->dial->tally = answer.tally;
		if (answer.subscription != 0)
			continue;
		dial->door->counters.nobody_there++;
		visitor_turn_away(visitor);
	}
}

static void take_callers(struct door_dial_back *dial);

void door_take_answers(struct door_thread *door)
{
	if (!door->dial_back)
		return;
	take_answers(door->dial_back);
	take_callers(door->dial_back);
}

static enum subscriptions_end end_of(const struct visitor *visitor, bool is_dialled)
{
	const struct door_thread *door = visitor->door;

	if (is_dialled)
		return SUBSCRIPTIONS_DIALLED;
	return door->now_ms - visitor->since_ms >= door->options.dial_ms ? SUBSCRIPTIONS_IN_VAIN : SUBSCRIPTIONS_LEFT;
}

/* Its source has a place again: at once, unless an agent has been told, or will be, for nothing. */
static void give_place_back(struct door_dial_back *dial, const struct visitor *visitor, enum subscriptions_end end)
{
	const bool is_told = !visitor->dial->is_answered || visitor->dial->subscription != 0;

	if (end != SUBSCRIPTIONS_LEFT || !is_told) {
		dial->n_waiting_of[visitor->source]--;
		return;
	}
	dial->n_left_of[visitor->source]++;
	if (dial->forget_left_ms == 0)
		dial->forget_left_ms = dial->door->now_ms + dial->door->options.dial_ms;
}

static void forget_left(struct door_dial_back *dial)
{
	for (size_t i = 0; i < DOOR_SOURCES; i++)
		dial->n_waiting_of[i] = (uint16_t)(dial->n_waiting_of[i] - dial->n_left_of[i]);
	memset(dial->n_left_of, 0, sizeof(dial->n_left_of));
	dial->forget_left_ms = 0;
}

void visitor_end_dial(struct visitor *visitor, bool is_dialled)
{
	const enum subscriptions_end end = end_of(visitor, is_dialled);
	struct door_dial_back *dial = visitor->door->dial_back;
	struct dial *ended = visitor->dial;

	if (!ended)
		return;
	if (ended->ticket != 0)
		give_place_back(dial, visitor, end);
	visitor->dial = NULL;
	dial_back_remove(&dial->table, ended->ticket);
	if (ended->is_answered)
		dial_exchange_end(dial->exchange, ended->subscription, end);
	free(ended);
}

/*
 * Not answered is who was whole when its agent left it without a byte. Soon: an agent without a target knows that at once, and
 * who keeps a server waiting for the rest of a request is left by it later.
 */
static bool was_left_unanswered(const struct visitor *visitor)
{
	return visitor->pair.left_silent == 2 && visitor->door->now_ms - visitor->since_ms < NO_TARGET_MS;
}

void visitor_judge_agent(struct visitor *visitor)
{
	struct agent_tally *tally = visitor->tally;
	const bool is_answered = visitor->pair.flows[1].n_bytes > 0;

	if (!tally || visitor->is_judged || !(is_answered || was_left_unanswered(visitor)))
		return;
	visitor->is_judged = true;
	atomic_fetch_add_explicit(is_answered ? &tally->answered : &tally->unanswered, 1, memory_order_relaxed);
}

/* For an agent that has a connection ready. Counted with what the visitor has had kept, and gone when an agent is told. */
static void copy_first(const struct visitor *visitor, struct dial_wanted *wanted)
{
	const struct splice_flow *flow = &visitor->pair.flows[0];

	if (!flow->head)
		return;
	wanted->n_first = flow->head_size < DIAL_WANTED_FIRST ? (uint32_t)flow->head_size : DIAL_WANTED_FIRST;
	wanted->first = malloc(wanted->n_first);
	if (!wanted->first)
		abort();
	memcpy(wanted->first, flow->head, wanted->n_first);
}

/* False: too many wait. */
static bool ask_for_agent(struct visitor *visitor, const struct sniffed *found)
{
	struct door_dial_back *dial = visitor->door->dial_back;
	struct dial_wanted wanted = { .port = found->protocol == SNIFFER_TLS ? 443 : 80, .host = found->host,
				      .visitor = { .from = visitor->remote, .to = visitor_own_end(visitor) } };

	visitor->dial = calloc(1, sizeof(*visitor->dial));
	if (!visitor->dial)
		abort();
	visitor->dial->is_tls = found->protocol == SNIFFER_TLS;
	copy_first(visitor, &wanted);
	wanted.ticket = dial_back_add(&dial->table, visitor, visitor->since_ms + visitor->door->options.dial_ms, wanted.secret);
	if (wanted.ticket != 0 && dial_exchange_want(dial->exchange, &wanted)) {
		visitor->dial->ticket = wanted.ticket;
		dial->n_waiting_of[visitor->source]++;
	} else {
		dial_back_remove(&dial->table, wanted.ticket);
		free(wanted.first);
	}
	sodium_memzero(wanted.secret, sizeof(wanted.secret));
	return visitor->dial->ticket != 0;
}

/* What came of it goes to the agent when there is one. */
static void keep_first(struct visitor *visitor, const uint8_t *bytes, size_t n)
{
	uint8_t *kept = n > 0 ? malloc(n) : NULL;

	if (n > 0 && !kept)
		abort();
	if (kept) {
		memcpy(kept, bytes, n);
		splice_pair_set_head_take(&visitor->pair, kept, n);
	}
	visitor_free_hello(visitor); /* the bytes may have been in there */
	visitor_set_kept(visitor, n);
}

void visitor_wait_for_agent(struct visitor *visitor, const struct sniffed *found, const uint8_t *bytes, size_t n)
{
	struct door_thread *door = visitor->door;
	const struct sniffed wanted = *found; /* found may be in the hello, which goes before an agent is asked */

	if (!door->dial_back) {
		door->counters.nobody_there++;
		visitor_turn_away(visitor);
		return;
	}
	if (door->dial_back->n_waiting_of[visitor->source] >= MAX_WAITING_SOURCE) {
		door->counters.dial_over_source_limit++;
		visitor_turn_away(visitor);
		return;
	}
	keep_first(visitor, bytes, n);
	visitor_place(visitor, WAITING, &door->dial_back->waiting);
	if (!ask_for_agent(visitor, &wanted)) {
		door->counters.dial_over_limit++;
		visitor_turn_away(visitor);
	} else if (visitor_watch(visitor) < 0) {
		visitor_turn_away_for_want(visitor);
	} else {
		door->counters.routed[wanted.protocol]++;
	}
}

/* ---- callers ---- */

/* Its socket is closed, or somebody else's. Events of this turn may still point to it. */
static void forget_caller(struct caller *caller)
{
	caller->fd = -1;
	caller->since_ms = caller->dial->door->now_ms;
	caller->dial->n_callers--;
	caller->dial->n_callers_of[caller->source]--;
	sodium_memzero(caller->secret, sizeof(caller->secret));
	free(caller->answer);
	caller->answer = NULL;
	link_put_last(&caller->dial->gone, &caller->place);
}

static void turn_caller_away(struct caller *caller)
{
	/* By itself, in case that somebody else still has the socket, too: else its events would go on, and point to nothing. */
	(void)epoll_ctl(caller->dial->door->epoll_fd, EPOLL_CTL_DEL, caller->fd, NULL);
	splice_close_with_reset(caller->fd);
	forget_caller(caller);
}

static void note_wrong(struct caller *caller)
{
	struct door_dial_back *dial = caller->dial;
	struct door_thread *door = dial->door;

	door->counters.dial_unknown++;
	if (dial->n_wrong[caller->source] < MAX_WRONG)
		dial->n_wrong[caller->source]++;
	if (dial->forgive_ms == 0)
		dial->forgive_ms = door->now_ms + WRONG_MS;
	log_limited(&door->log_limit, LOG_LEVEL_WARNING, "frontdoor", "%s dialled back with a secret that was told to nobody",
		    endpoint_ip_text(&caller->remote).s);
}

/* What the agent has on a connection that was ready is not sent again. */
static void skip_sent(struct visitor *visitor, uint32_t n)
{
	if (n == 0)
		return;
	splice_pair_skip_head(&visitor->pair, n);
	visitor->door->counters.bytes_in += n;
	if (visitor->gate)
		door_gate_moved(visitor->gate, n, 0);
}

/* The socket goes on as the other end of the visitor's pair. */
static void join(struct caller *caller, struct visitor *visitor)
{
	struct door_thread *door = caller->dial->door;
	struct splice_end *end = &visitor->pair.ends[1];
	const struct pump_end state = { .is_readable = true, .is_writable = true };

	skip_sent(visitor, caller->n_sent);
	if (caller->answer)
		splice_pair_set_answer_take(&visitor->pair, caller->answer, caller->n_answer);
	caller->answer = NULL;
	end->fd = caller->fd;
	visitor->ends_here = caller->ends_here;
	forget_caller(caller);
	end->is_prompt = true; /* as its listener is */
	end->is_watched_for_room = true;
	struct epoll_event event = { .events = SPLICE_EVENTS_OF_FULL, .data.ptr = &end->watch };
	if (epoll_ctl(door->epoll_fd, EPOLL_CTL_MOD, end->fd, &event) < 0) {
		visitor_turn_away_for_want(visitor);
		return;
	}
	visitor->tally = visitor->dial->tally;
	if (visitor->tally)
		atomic_fetch_add_explicit(&visitor->tally->open, 1, memory_order_relaxed);
	visitor_end_dial(visitor, true);
	door->counters.dialled++;
	if (visitor->gate)
		door_gate_reached(visitor->gate);
	visitor_hand_to_pump(visitor, &state);
}

/* What is not TLS itself was not asked for in plain: neither has the other. */
static void refuse_raw(struct caller *caller, struct visitor *visitor)
{
	caller->dial->door->counters.dial_bare++;
	turn_caller_away(caller);
	visitor_turn_away(visitor);
}

static void present(struct caller *caller)
{
	struct door_dial_back *dial = caller->dial;
	void *found = NULL;
	struct visitor *visitor;

	switch (dial_back_take(&dial->table, caller->secret, dial->door->now_ms, &found)) {
	case 0:
		visitor = found;
		if (caller->is_raw && !visitor->dial->is_tls)
			refuse_raw(caller, visitor);
		else
			join(caller, visitor);
		return;
	case DIAL_BACK_LATE:
		dial->door->counters.dial_late++;
		break;
	default:
		note_wrong(caller);
	}
	turn_caller_away(caller);
}

static void on_caller(struct watch *watch, uint32_t events)
{
	struct caller *caller = container_of(watch, struct caller, watch);
	struct door_dial_back *dial = caller->dial;

	(void)events;
	if (caller->fd < 0)
		return;
	const ssize_t n = recv(caller->fd, caller->secret + caller->n, sizeof(caller->secret) - caller->n, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		dial->door->counters.dial_silent++;
		turn_caller_away(caller);
		return;
	}
	caller->n = (uint8_t)(caller->n + n);
	if (caller->n < sizeof(caller->secret))
		return;
	take_answers(dial); /* the agent may be faster than the word of whose agent it is */
	present(caller);
}

/* Of the source, or of all: the one that has been silent for longest makes room. */
static void make_room(struct door_dial_back *dial, uint16_t source)
{
	const uint16_t most = dial->n_wrong[source] < MAX_WRONG ? MAX_CALLERS_SOURCE : MAX_CALLERS_WRONG;
	const bool is_source_full = dial->n_callers_of[source] >= most;

	if (!is_source_full && dial->n_callers < MAX_CALLERS)
		return;
	for (struct link *at = dial->callers.after; at != &dial->callers; at = at->after) {
		struct caller *caller = container_of(at, struct caller, place);
		if (is_source_full && caller->source != source)
			continue;
		dial->door->counters.dial_refused++;
		turn_caller_away(caller);
		return;
	}
}

/* NULL: it is turned away. */
static struct caller *welcome_caller(struct door_dial_back *dial, int fd, const struct endpoint *remote)
{
	struct door_thread *door = dial->door;
	const uint16_t source = door_source_of(door, remote);
	struct caller *caller = calloc(1, sizeof(*caller));

	if (!caller)
		abort();
	*caller = (struct caller){ .watch.happened = on_caller, .dial = dial, .fd = fd, .remote = *remote,
				   .source = source, .since_ms = door->now_ms };
	make_room(dial, source);
	dial->n_callers++;
	dial->n_callers_of[source]++;
	link_put_last(&dial->callers, &caller->place);
	if (door_watch(door, fd, &caller->watch, EPOLLIN) == 0)
		return caller;
	turn_caller_away(caller);
	return NULL;
}

/* Of whom it is known that nobody will come. */
static void give_up_visitor(struct door_dial_back *dial, const uint8_t secret[DIAL_BACK_SECRET])
{
	void *found = NULL;

	take_answers(dial); /* so that it is said of which agent it was */
	if (dial_back_take(&dial->table, secret, dial->door->now_ms, &found) == 0)
		visitor_turn_away_for_want(found);
}

/* Their secrets were read with them. */
static void take_callers(struct door_dial_back *dial)
{
	struct dial_caller given;

	while (dial_exchange_take_caller(dial->exchange, &given)) {
		struct caller *caller = given.fd >= 0 ? welcome_caller(dial, given.fd, &given.remote) : NULL;
		if (given.fd < 0) {
			give_up_visitor(dial, given.secret);
		} else if (caller) {
			memcpy(caller->secret, given.secret, sizeof(caller->secret));
			caller->n = sizeof(caller->secret);
			caller->ends_here = !given.is_raw; /* else it came by TLS, which somebody in this process takes off */
			caller->is_raw = given.is_raw;
			caller->n_sent = given.n_sent;
			caller->answer = given.answer;
			caller->n_answer = given.n_answer;
			take_answers(dial); /* it may have come behind those that were taken before */
			present(caller);
		} else {
			free(given.answer);
		}
		sodium_memzero(&given, sizeof(given));
	}
}

static void set_asking_in(struct door_dial_back *dial, bool is_asking)
{
	struct epoll_event event = { .events = is_asking ? EPOLLIN : 0, .data.ptr = &dial->watch };

	(void)epoll_ctl(dial->door->epoll_fd, EPOLL_CTL_MOD, dial->fd, &event);
	dial->accept_again_ms = is_asking ? 0 : dial->door->now_ms + RETRY_ACCEPT_MS;
}

static void on_dial_listener(struct watch *watch, uint32_t events)
{
	struct door_dial_back *dial = container_of(watch, struct door_dial_back, watch);

	(void)events;
	for (int i = 0; i < CALLERS_A_TURN; i++) {
		struct sockaddr_storage address = { 0 };
		socklen_t len = sizeof(address);
		const int fd = accept4(dial->fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			const struct endpoint remote = endpoint_from_sockaddr((const struct sockaddr *)&address);
			struct caller *caller = welcome_caller(dial, fd, &remote);
			if (caller)
				on_caller(&caller->watch, 0); /* as a rule the secret is there already */
		} else if (errno == EAGAIN) {
			return;
		} else if (errno != ECONNABORTED && errno != EINTR) {
			set_asking_in(dial, false); /* for want of descriptors or memory */
			return;
		}
	}
}

/* ---- time, beginning and end ---- */

static uint64_t expire_callers(struct door_dial_back *dial)
{
	struct door_thread *door = dial->door;
	const struct link *first;

	while ((first = link_first(&dial->callers))) {
		struct caller *caller = container_of(first, struct caller, place);
		if (caller->since_ms + door->options.present_ms > door->now_ms)
			return caller->since_ms + door->options.present_ms;
		door->counters.dial_silent++;
		turn_caller_away(caller);
	}
	return UINT64_MAX;
}

uint64_t door_expire_dial_back(struct door_thread *door)
{
	struct door_dial_back *dial = door->dial_back;
	uint64_t next = UINT64_MAX;

	if (!dial)
		return UINT64_MAX;
	if (dial->forgive_ms != 0 && dial->forgive_ms <= door->now_ms) {
		memset(dial->n_wrong, 0, sizeof(dial->n_wrong));
		dial->forgive_ms = 0;
	}
	if (dial->forget_left_ms != 0 && dial->forget_left_ms <= door->now_ms)
		forget_left(dial);
	if (dial->accept_again_ms != 0 && dial->accept_again_ms <= door->now_ms)
		set_asking_in(dial, true);
	const uint64_t due[] = {
		door_expire(door, &dial->waiting, door->options.dial_ms, &door->counters.dial_timed_out),
		expire_callers(dial),
		dial->forgive_ms != 0 ? dial->forgive_ms : UINT64_MAX,
		dial->forget_left_ms != 0 ? dial->forget_left_ms : UINT64_MAX,
		dial->accept_again_ms != 0 ? dial->accept_again_ms : UINT64_MAX,
	};
	for (size_t i = 0; i < sizeof(due) / sizeof(*due); i++)
		next = due[i] < next ? due[i] : next;
	return next;
}

void door_free_gone_callers(struct door_thread *door)
{
	struct link *first;

	while (door->dial_back && (first = link_first(&door->dial_back->gone))) {
		struct caller *caller = container_of(first, struct caller, place);
		if (!door_may_free(door, caller->since_ms))
			return;
		link_remove(first);
		free(caller);
	}
}

int door_thread_open_dial_back(struct door_thread *door, int listener, struct dial_exchange *exchange)
{
	struct door_dial_back *dial = calloc(1, sizeof(*dial));

	if (!dial)
		return -ENOMEM;
	dial->door = door;
	dial->watch.happened = on_dial_listener;
	dial->fd = listener;
	dial->exchange = exchange;
	link_init_ring(&dial->waiting);
	link_init_ring(&dial->callers);
	link_init_ring(&dial->gone);
	dial_back_init(&dial->table);
	door->dial_back = dial;
	return door_watch(door, listener, &dial->watch, EPOLLIN);
}

void door_close_dial_back(struct door_thread *door)
{
	struct door_dial_back *dial = door->dial_back;
	const struct link *first;

	if (!dial)
		return;
	while ((first = link_first(&dial->callers)))
		turn_caller_away(container_of(first, struct caller, place));
	door_free_gone_callers(door);
	free(dial);
	door->dial_back = NULL;
}
