#include "relay/webgw/data_links.h"

#include "common/macros.h"
#include "common/source_limit.h"
#include "relay/frontdoor/link.h"
#include "relay/tcp_listener.h"
#include "relay/webgw/agent_wire.h"
#include "relay/webgw/tcp_pair.h"
#include "relay/webgw/tls_bridge.h"
#include "relay/webgw/warm_pools.h"

#include <openssl/ssl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

_Static_assert(WEBGW_FIRST_MAX == DIAL_WANTED_FIRST && TLS_BRIDGE_EARLY >= WEBGW_START_MAX + WEBGW_FIRST_MAX, "a start has room");

#define MAX_LINKS	   16384
#define MAX_PROVING	   1024 /* as the front door has of those without TLS */
#define MAX_PROVING_SOURCE 256
#define PROVE_MS	   5000 /* with TLS's handshake: longer no visitor waits */
#define LOOK_MS		   500
#define AWAIT_MS	   200 /* for a warm one that is coming; longer than an agent should need for it */
#define TAKE_MS		   500 /* for the word that a visitor is taken: a round trip, as a rule */
#define RATE_S		   200 /* of one source */
#define RATE_BURST	   1000
#define RESUMED_S	   2000 /* of one source, that were asked for, and cost little */

struct data_link {
	struct tls_bridge bridge;
	struct data_links *links;
	struct link among_proving, among_all;
	struct link among_started; /* by when, while it has not taken its visitor */
	struct warm_place place;
	struct endpoint remote;
	uint64_t since_ms;
	uint8_t secret[WEBGW_EPHEMERAL_LEN]; /* that it said, while TLS has yet to end */
	int64_t subscription;	     /* of one that is, or was, warm; 0: neither */
	struct dial_wanted *started; /* its visitor; without what it sent first. NULL: none */
	uint64_t started_ms;
	bool is_told; /* the agent was told otherwise, too */
	bool is_taken; /* by it; TLS has yet to end */
	bool goes_raw; /* TLS ends before the visitor has it */
	bool is_closing;
};

/* A visitor for whom a warm one is coming. */
struct awaiting {
	struct link among;
	int64_t subscription;
	uint64_t since_ms;
	struct dial_wanted wanted;
	uint8_t first[WEBGW_FIRST_MAX];
};

struct data_links {
	struct data_links_options options;
	struct tcp_listener listener;
	struct tcp_pair_maker pairs;
	struct source_limit limit, resumed;
	uv_timer_t timer;
	uv_timer_t take_timer; /* of the first that is started */
	uv_timer_t await_timer;
	struct link awaiting; /* by when they came */
	struct warm_pools *warm;
	struct link proving, started, late, all; /* late: started, and their agents are told otherwise */
	struct data_links_counters counters;
	uint32_t n_proving, max_links;
	uint8_t n_open; /* listener and timers */
	bool is_stopping;
	void (*stopped)(void *owner);
	void *stopped_owner;
};

/* ---- the end ---- */

static void free_if_empty(struct data_links *links)
{
	if (!links->is_stopping || links->n_open > 0 || links->counters.open > 0)
		return;
	void (*stopped)(void *owner) = links->stopped;
	void *owner = links->stopped_owner;
	tcp_pair_maker_deinit(&links->pairs);
	warm_pools_free(links->warm);
	SSL_CTX_free(links->options.context);
	free(links);
	if (stopped)
		stopped(owner);
}

static void on_link_closed(void *owner)
{
	struct data_link *link = owner;
	struct data_links *links = link->links;

	links->counters.open--;
	free(link);
	free_if_empty(links);
}

static bool is_proving(const struct data_link *link)
{
	return link_is_in_ring(&link->among_proving);
}

static void no_longer_proving(struct data_link *link)
{
	link->links->n_proving -= is_proving(link);
	link_remove(&link->among_proving);
}

static void drop_started(struct data_link *link)
{
	link_remove(&link->among_started);
	if (link->started)
		sodium_memzero(link->started, sizeof(*link->started));
	free(link->started);
	link->started = NULL;
}

/* Nobody will come for it: the door turns it away at once, else it waits for as long as visitors do. */
static void give_up(const struct data_links *links, const uint8_t secret[WEBGW_EPHEMERAL_LEN])
{
	const struct data_links_ports *ports = &links->options.ports;
	struct dial_caller nobody = { .fd = -1 };

	memcpy(nobody.secret, secret, sizeof(nobody.secret));
	(void)ports->caller(ports->owner, &nobody);
	sodium_memzero(&nobody, sizeof(nobody));
}

static void not_taken(const struct data_links *links, int64_t subscription, const struct dial_wanted *wanted)
{
	const struct data_links_ports *ports = &links->options.ports;

	if (!ports->not_taken(ports->owner, subscription, wanted))
		give_up(links, wanted->secret);
}

/* Once for a visitor. */
static void tell_otherwise(struct data_link *link)
{
	if (!link->started || link->is_told || link->links->is_stopping)
		return;
	link->is_told = true;
	link->links->counters.warm_lost++;
	not_taken(link->links, link->subscription, link->started);
}

static void close_link(struct data_link *link)
{
	if (link->is_closing)
		return;
	link->is_closing = true;
	sodium_memzero(link->secret, sizeof(link->secret));
	no_longer_proving(link);
	warm_pools_remove(link->links->warm, &link->place);
	tell_otherwise(link);
	drop_started(link);
	link_remove(&link->among_all);
	tls_bridge_close(&link->bridge, on_link_closed);
}

static void on_over(void *owner, const struct error *why)
{
	struct data_link *link = owner;

	(void)why;
	link->links->counters.broken += is_proving(link);
	close_link(link);
}

/* ---- the secret ---- */

/*
 * The agent has taken it, and cannot serve it for want of descriptors: the door turns it away at once. Not who is told
 * otherwise already: somebody else may come.
 */
static void give_visitor_up(struct data_link *link, const struct dial_caller *caller_for)
{
	link->links->counters.no_descriptors++;
	if (!link->is_told)
		give_up(link->links, caller_for->secret);
}

/* It goes to the front door, which knows whose visitor it is for. */
static void hand_over(struct data_link *link, const uint8_t secret[WEBGW_EPHEMERAL_LEN], uint32_t n_sent)
{
	struct data_links *links = link->links;
	const struct data_links_ports *ports = &links->options.ports;
	struct dial_caller caller = { .remote = link->remote, .n_sent = n_sent };
	int ends[2];

	memcpy(caller.secret, secret, sizeof(caller.secret));
	if (tcp_pair_make(&links->pairs, ends) < 0) {
		give_visitor_up(link, &caller);
		sodium_memzero(&caller, sizeof(caller));
		close_link(link);
		return;
	}
	caller.fd = ends[1];
	const bool is_taken = ports->caller(ports->owner, &caller);
	sodium_memzero(&caller, sizeof(caller));
	if (tls_bridge_join(&link->bridge, ends[0]) < 0 || !is_taken) {
		links->counters.no_descriptors++;
		close_link(link);
		return;
	}
	links->counters.joined++;
	tls_bridge_pass(&link->bridge);
}

/*
 * The socket itself: this is done with it, and has closed what it had of it before the door's thread has the rest. What a
 * descriptor less leaves open stays in an epoll, and a reset does not come of it.
 */
static void hand_over_raw(struct data_link *link, const uint8_t secret[WEBGW_EPHEMERAL_LEN], uint32_t n_sent)
{
	struct data_links *links = link->links;
	const struct data_links_ports *ports = &links->options.ports;
	struct dial_caller caller = { .remote = link->remote, .n_sent = n_sent, .is_raw = true };
	size_t n_answer = 0;

	caller.fd = tls_bridge_release(&link->bridge, &caller.answer, &n_answer);
	caller.n_answer = (uint32_t)n_answer; /* a read's, at most */
	memcpy(caller.secret, secret, sizeof(caller.secret)); /* may be the link's own, which is wiped next */
	close_link(link); /* it lives until the loop has gone round */
	if (caller.fd < 0) {
		give_visitor_up(link, &caller);
	} else if (ports->caller(ports->owner, &caller)) {
		links->counters.joined++;
		links->counters.raw++;
	} else {
		links->counters.no_descriptors++;
	}
	sodium_memzero(&caller, sizeof(caller));
}

/* ---- what is warm ---- */

/* What it says while nobody has come for it. */
static void hear_alive(struct data_link *link)
{
	size_t n;
	const uint8_t *bytes = tls_bridge_came(&link->bridge, &n);

	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == WEBGW_ALIVE)
			continue;
		link->links->counters.warm_ended++;
		close_link(link);
		return;
	}
	tls_bridge_skip(&link->bridge, n);
	warm_pools_heard(link->links->warm, &link->place, uv_now(link->links->options.loop));
}

/* Of one that takes its visitor without TLS: the last word within is "taken", and then TLS's end is awaited. */
static void hear_taken_raw(struct data_link *link)
{
	size_t n, at = 0;
	const uint8_t *bytes = tls_bridge_came(&link->bridge, &n);

	while (at < n && bytes[at] == WEBGW_ALIVE && !link->is_taken)
		at++;
	if (at < n && bytes[at] == WEBGW_TAKEN && !link->is_taken) {
		link->is_taken = true;
		at++;
	}
	if (at < n) {
		close_link(link);
		return;
	}
	tls_bridge_skip(&link->bridge, n);
}

/* It may have said before that it lives; behind "taken" stands what the visitor is answered. */
static void hear_taken(struct data_link *link)
{
	size_t n, at = 0;
	const uint8_t *bytes = tls_bridge_came(&link->bridge, &n);

	while (at < n && bytes[at] == WEBGW_ALIVE)
		at++;
	const bool is_taken = at < n && bytes[at] == WEBGW_TAKEN;
	const bool is_wrong = at < n && !is_taken;
	tls_bridge_skip(&link->bridge, at + is_taken);
	if (is_wrong)
		close_link(link);
	if (!is_taken || is_wrong)
		return;
	struct dial_wanted wanted = *link->started;
	drop_started(link);
	link->links->counters.warm_used++;
	hand_over(link, wanted.secret, wanted.n_first);
	sodium_memzero(&wanted, sizeof(wanted));
}

static void start_visitor(struct data_link *link, const struct dial_wanted *wanted);

/* ---- who waits for one ---- */

static void free_awaiting(struct awaiting *one)
{
	link_remove(&one->among);
	sodium_memzero(one, sizeof(*one));
	free(one);
}

static uint32_t count_awaiting(const struct data_links *links, int64_t subscription)
{
	uint32_t n = 0;

	for (const struct link *at = links->awaiting.after; at != &links->awaiting; at = at->after)
		n += container_of(at, struct awaiting, among)->subscription == subscription;
	return n;
}

static void on_await_timer(uv_timer_t *timer)
{
	struct data_links *links = container_of(timer, struct data_links, await_timer);
	const uint64_t now_ms = uv_now(timer->loop);
	struct link *first;

	while ((first = link_first(&links->awaiting))) {
		struct awaiting *one = container_of(first, struct awaiting, among);
		if (now_ms < one->since_ms + AWAIT_MS) {
			(void)uv_timer_start(timer, on_await_timer, one->since_ms + AWAIT_MS - now_ms, 0);
			return;
		}
		links->counters.awaited_late++;
		not_taken(links, one->subscription, &one->wanted);
		free_awaiting(one);
	}
}

/* False: for all that are coming somebody waits already. */
static bool await_warm(struct data_links *links, int64_t subscription, const struct dial_wanted *wanted)
{
	const uint64_t now_ms = uv_now(links->options.loop);

	if (count_awaiting(links, subscription) >= warm_pools_coming(links->warm, subscription, now_ms))
		return false;
	struct awaiting *one = calloc(1, sizeof(*one));
	if (!one)
		abort();
	one->subscription = subscription;
	one->since_ms = now_ms;
	one->wanted = *wanted;
	one->wanted.first = wanted->n_first > 0 ? one->first : NULL;
	if (wanted->n_first > 0)
		memcpy(one->first, wanted->first, wanted->n_first);
	link_put_last(&links->awaiting, &one->among);
	if (!uv_is_active((uv_handle_t *)&links->await_timer))
		(void)uv_timer_start(&links->await_timer, on_await_timer, AWAIT_MS, 0);
	return true;
}

/* Its agent has gone, whose connection is of no use any more: by that it would not even be told who the visitor is. */
static void send_awaiting_away(struct data_links *links, int64_t subscription)
{
	for (struct link *at = links->awaiting.after, *next; at != &links->awaiting; at = next) {
		struct awaiting *one = container_of(at, struct awaiting, among);
		next = at->after;
		if (one->subscription != subscription)
			continue;
		links->counters.awaited_late++;
		not_taken(links, subscription, &one->wanted);
		free_awaiting(one);
	}
}

/* One has come: who has waited longest for it has it. */
static void end_awaiting(struct data_links *links, int64_t subscription)
{
	if (!links->options.ports.is_there(links->options.ports.owner, subscription)) {
		send_awaiting_away(links, subscription);
		return;
	}
	for (struct link *at = links->awaiting.after; at != &links->awaiting; at = at->after) {
		struct awaiting *one = container_of(at, struct awaiting, among);
		if (one->subscription != subscription)
			continue;
		struct warm_place *place = warm_pools_take(links->warm, subscription);
		if (!place)
			return;
		links->counters.awaited++;
		start_visitor(container_of(place, struct data_link, place), &one->wanted);
		free_awaiting(one);
		return;
	}
}

/*
 * It was asked for, and a busy agent makes more than others may; but it is the agent that asks: who does not resume, or does
 * nothing else, is slowed as anybody.
 */
static void spare_limit(struct data_link *link)
{
	struct data_links *links = link->links;

	if (tls_stream_was_resumed(&link->bridge.stream) &&
	    source_limit_take(&links->resumed, &link->remote, uv_now(links->options.loop)))
		source_limit_give_back(&links->limit, &link->remote);
}

/* False: it is no such secret. */
static bool admit_warm(struct data_link *link, const uint8_t secret[WEBGW_EPHEMERAL_LEN])
{
	const int64_t r = warm_pools_admit(link->links->warm, secret, &link->place, uv_now(link->links->options.loop));

	if (r == WARM_POOLS_LATE) {
		link->links->counters.warm_ended++;
		close_link(link);
	} else if (r > 0) {
		link->subscription = r;
		spare_limit(link);
		hear_alive(link);
		end_awaiting(link->links, r);
	}
	return r != 0;
}

static void on_take_timer(uv_timer_t *timer)
{
	struct data_links *links = container_of(timer, struct data_links, take_timer);
	const uint64_t now_ms = uv_now(timer->loop);
	struct link *first;

	while ((first = link_first(&links->started))) {
		struct data_link *link = container_of(first, struct data_link, among_started);
		if (now_ms < link->started_ms + TAKE_MS) {
			(void)uv_timer_start(timer, on_take_timer, link->started_ms + TAKE_MS - now_ms, 0);
			return;
		}
		link_put_last(&links->late, &link->among_started);
		tell_otherwise(link);
	}
}

static bool can_go_raw(const struct data_link *link)
{
	return tls_stream_alpn_is(&link->bridge.stream, WEBGW_ALPN);
}

static bool tells_visitors(const struct data_link *link)
{
	const struct data_links_ports *ports = &link->links->options.ports;

	return ports->tells_visitors && ports->tells_visitors(ports->owner, link->subscription);
}

static void start_visitor(struct data_link *link, const struct dial_wanted *wanted)
{
	struct data_links *links = link->links;
	struct webgw_start start = { .port = wanted->port, .host = wanted->host, .n_first = (uint16_t)wanted->n_first };
	uint8_t head[WEBGW_START_MAX];

	link->started = malloc(sizeof(*link->started));
	if (!link->started)
		abort();
	*link->started = *wanted;
	link->started->first = NULL;
	link->started_ms = uv_now(links->options.loop);
	link_put_last(&links->started, &link->among_started);
	if (!uv_is_active((uv_handle_t *)&links->take_timer))
		(void)uv_timer_start(&links->take_timer, on_take_timer, TAKE_MS, 0);
	memcpy(start.secret, wanted->secret, sizeof(start.secret));
	if (tells_visitors(link))
		start.visitor = wanted->visitor;
	start.is_raw = link->goes_raw = wanted->port == 443 && can_go_raw(link);
	tls_bridge_say(&link->bridge, head, webgw_start_write(&start, head));
	if (wanted->n_first > 0)
		tls_bridge_say(&link->bridge, wanted->first, wanted->n_first);
	if (link->goes_raw)
		tls_bridge_part(&link->bridge);
	sodium_memzero(&start, sizeof(start));
	sodium_memzero(head, sizeof(head));
}

bool data_links_hand(struct data_links *links, int64_t subscription, const struct dial_wanted *wanted)
{
	struct warm_place *place = warm_pools_take(links->warm, subscription);

	if (!place)
		return await_warm(links, subscription, wanted);
	start_visitor(container_of(place, struct data_link, place), wanted);
	return true;
}

uint32_t data_links_prepare(struct data_links *links, int64_t subscription, uint32_t n, uint8_t ret[][WEBGW_EPHEMERAL_LEN])
{
	return warm_pools_prepare(links->warm, subscription, n, uv_now(links->options.loop), ret);
}

/* Silent ones, those whose agent has gone, and those that will not take their visitor any more: it waits no longer. */
static void end_stale(struct data_links *links)
{
	const struct data_links_ports *ports = &links->options.ports;
	const uint64_t now_ms = uv_now(links->options.loop);
	struct warm_place *place, *next;
	int64_t subscription = 0, of_next = 0;
	struct link *late;

	while ((place = warm_pools_expired(links->warm, now_ms))) {
		links->counters.warm_ended++;
		close_link(container_of(place, struct data_link, place));
	}
	place = warm_pools_next(links->warm, NULL, &subscription);
	for (; place; place = next, subscription = of_next) {
		next = warm_pools_next(links->warm, place, &of_next);
		if (!ports->is_there(ports->owner, subscription))
			close_link(container_of(place, struct data_link, place));
	}
	while ((late = link_first(&links->late)) &&
	       now_ms >= container_of(late, struct data_link, among_started)->started_ms + PROVE_MS)
		close_link(container_of(late, struct data_link, among_started));
}

/* ---- what comes ---- */

/* It is whole, and how it goes on is known. */
static void take_secret(struct data_link *link, bool goes_raw)
{
	uint8_t secret[WEBGW_EPHEMERAL_LEN];

	if (goes_raw) { /* still proving, until TLS has ended */
		link->goes_raw = true;
		tls_bridge_part(&link->bridge);
		return;
	}
	memcpy(secret, link->secret, sizeof(secret));
	sodium_memzero(link->secret, sizeof(link->secret));
	no_longer_proving(link);
	if (!admit_warm(link, secret))
		hand_over(link, secret, 0);
	sodium_memzero(secret, sizeof(secret));
}

/* Before it stands, of an agent that can do without TLS, whether it will. */
static void hear_secret(struct data_link *link)
{
	size_t n;
	const uint8_t *bytes = tls_bridge_came(&link->bridge, &n);
	const size_t before = can_go_raw(link) ? 1 : 0, len = before + sizeof(link->secret);
	const uint8_t kind = before > 0 && n > 0 ? bytes[0] : WEBGW_DIAL_WRAPPED;

	if (link->goes_raw || (kind != WEBGW_DIAL_WRAPPED && kind != WEBGW_DIAL_RAW)) {
		link->links->counters.broken++; /* there is nothing between the secret and TLS's end */
		close_link(link);
		return;
	}
	if (n < len)
		return;
	memcpy(link->secret, bytes + before, sizeof(link->secret));
	tls_bridge_skip(&link->bridge, len);
	take_secret(link, kind == WEBGW_DIAL_RAW);
	if (!link->is_closing && is_proving(link) && n > len)
		hear_secret(link);
}

static void on_came(void *owner)
{
	struct data_link *link = owner;

	if (link->is_closing)
		return;
	if (link->started) {
		if (link->goes_raw)
			hear_taken_raw(link);
		else
			hear_taken(link);
		return;
	}
	if (link->place.pool) {
		hear_alive(link);
		return;
	}
	if (is_proving(link))
		hear_secret(link);
}

/* TLS has ended, both ways, and the agent is whose it said. */
static void on_parted(void *owner)
{
	struct data_link *link = owner;
	struct dial_wanted wanted;

	if (link->is_closing)
		return;
	if (!link->started) { /* it dialled back for that visitor */
		no_longer_proving(link);
		hand_over_raw(link, link->secret, 0);
		return;
	}
	if (!link->is_taken) {
		close_link(link);
		return;
	}
	wanted = *link->started;
	drop_started(link);
	link->links->counters.warm_used++;
	hand_over_raw(link, wanted.secret, wanted.n_first);
	sodium_memzero(&wanted, sizeof(wanted));
}

static void on_ready(void *owner)
{
	(void)owner; /* its secret comes */
}

/* ---- who comes ---- */

/* Of the source, or of all: the one that is there for longest makes room. */
static void make_room(struct data_links *links, const struct endpoint *remote)
{
	struct data_link *first_of_source = NULL;
	uint32_t n_of_source = 0;

	for (struct link *at = links->proving.after; at != &links->proving; at = at->after) {
		struct data_link *link = container_of(at, struct data_link, among_proving);
		if (!endpoint_is_same_source(&link->remote, remote))
			continue;
		n_of_source++;
		first_of_source = first_of_source ? first_of_source : link;
	}
	if (n_of_source >= MAX_PROVING_SOURCE) {
		links->counters.refused++;
		close_link(first_of_source);
	} else if (links->n_proving >= MAX_PROVING) {
		links->counters.refused++;
		close_link(container_of(link_first(&links->proving), struct data_link, among_proving));
	}
}

/* NULL: it is refused, and closed. */
static struct data_link *let_in(struct data_links *links, int fd, const struct endpoint *remote)
{
	const uint64_t now_ms = uv_now(links->options.loop);

	links->counters.accepted++;
	if (links->is_stopping || links->counters.open >= links->max_links || !source_limit_take(&links->limit, remote, now_ms)) {
		links->counters.refused++;
		close(fd);
		return NULL;
	}
	make_room(links, remote);
	struct data_link *link = calloc(1, sizeof(*link));
	if (!link)
		abort();
	link->links = links;
	link->remote = *remote;
	link->since_ms = now_ms;
	const struct tls_bridge_ports ports = { .owner = link, .ready = on_ready, .came = on_came, .parted = on_parted, .over = on_over };
	if (tls_bridge_open_server(&link->bridge, links->options.tls_host, links->options.context, fd, &ports) < 0) {
		links->counters.no_descriptors++;
		free(link);
		return NULL;
	}
	links->counters.open++;
	links->n_proving++;
	link_put_last(&links->proving, &link->among_proving);
	link_put_last(&links->all, &link->among_all);
	return link;
}

static void on_accepted(void *owner, int fd, const struct endpoint *remote)
{
	(void)let_in(owner, fd, remote);
}

void data_links_take(struct data_links *links, int fd_take, const struct endpoint *remote, const uint8_t *bytes, size_t n)
{
	struct data_link *link = let_in(links, fd_take, remote);

	if (link)
		tls_stream_feed(&link->bridge.stream, bytes, n); /* it may be over now */
}

static void on_look(uv_timer_t *timer)
{
	struct data_links *links = container_of(timer, struct data_links, timer);
	struct link *first;

	end_stale(links);
	while ((first = link_first(&links->proving))) {
		struct data_link *link = container_of(first, struct data_link, among_proving);
		if (uv_now(timer->loop) < link->since_ms + PROVE_MS)
			return;
		links->counters.slow++;
		close_link(link);
	}
}

/* ---- beginning ---- */

static void on_part_closed(struct data_links *links)
{
	links->n_open--;
	free_if_empty(links);
}

static void on_listener_closed(void *owner)
{
	on_part_closed(owner);
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_part_closed(container_of((uv_timer_t *)handle, struct data_links, timer));
}

static void on_await_timer_closed(uv_handle_t *handle)
{
	on_part_closed(container_of((uv_timer_t *)handle, struct data_links, await_timer));
}

static void on_take_timer_closed(uv_handle_t *handle)
{
	on_part_closed(container_of((uv_timer_t *)handle, struct data_links, take_timer));
}

/* Each has two descriptors, and its visitor two at the door. */
static uint32_t max_links(void)
{
	struct rlimit files = { .rlim_cur = 1024 };

	(void)getrlimit(RLIMIT_NOFILE, &files);
	return files.rlim_cur / 8 < MAX_LINKS ? (uint32_t)(files.rlim_cur / 8) : MAX_LINKS;
}

int data_links_start(const struct data_links_options *options, struct data_links **ret, struct error *reterr)
{
	struct data_links *links = calloc(1, sizeof(*links));

	if (!links)
		abort();
	links->options = *options;
	links->max_links = max_links();
	links->pairs.listener = -1;
	link_init_ring(&links->proving);
	link_init_ring(&links->started);
	link_init_ring(&links->late);
	link_init_ring(&links->awaiting);
	link_init_ring(&links->all);
	source_limit_init(&links->limit, RATE_S, RATE_BURST);
	source_limit_init(&links->resumed, RESUMED_S, RESUMED_S);
	links->limit.is_each_v4 = links->resumed.is_each_v4 = true;
	const struct tcp_listener_ports ports = { .owner = links, .accepted = on_accepted };
	const int r = tcp_listener_open(&links->listener, options->loop, &options->listen, NULL, &ports, reterr);
	if (r != 0) {
		free(links);
		return r;
	}
	SSL_CTX_up_ref(options->context);
	links->n_open = 4;
	links->warm = warm_pools_new();
	(void)uv_timer_init(options->loop, &links->take_timer);
	(void)uv_timer_init(options->loop, &links->await_timer);
	(void)uv_timer_init(options->loop, &links->timer);
	(void)uv_timer_start(&links->timer, on_look, LOOK_MS, LOOK_MS);
	*ret = links;
	return 0;
}

void data_links_stop(struct data_links *links, void (*stopped)(void *owner), void *owner)
{
	struct link *first;

	links->is_stopping = true;
	links->stopped = stopped;
	links->stopped_owner = owner;
	while ((first = link_first(&links->all)))
		close_link(container_of(first, struct data_link, among_all));
	while ((first = link_first(&links->awaiting)))
		free_awaiting(container_of(first, struct awaiting, among));
	tcp_listener_close(&links->listener, on_listener_closed);
	uv_close((uv_handle_t *)&links->await_timer, on_await_timer_closed);
	uv_close((uv_handle_t *)&links->timer, on_timer_closed);
	uv_close((uv_handle_t *)&links->take_timer, on_take_timer_closed);
}

void data_links_set_context(struct data_links *links, SSL_CTX *context)
{
	SSL_CTX_up_ref(context);
	SSL_CTX_free(links->options.context);
	links->options.context = context;
}

uint16_t data_links_port(const struct data_links *links)
{
	return tcp_listener_port(&links->listener);
}

struct data_links_counters data_links_counters(const struct data_links *links)
{
	struct data_links_counters counters = links->counters;

	counters.warm_now = warm_pools_count(links->warm);
	return counters;
}
