/*
 * The thread: waits for its sockets and for the loop's word, takes batch after batch, and looks around for the
 * silent now and then.
 */
#include "common/clock.h"
#include "common/log.h"
#include "relay/udp_clients_saved.h"
#include "relay/udp_server_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS		 250
#define PATIENCE	 16    /* turns, one right after the other: then the next ones are let come together … */
#define LITTLE_BYTES	 70000 /* … when the last brought no more, a train */
#define TIMER_SLACK_NS	 1000
#define RETRY_RESTART_MS 500
#define RETRY_DRAINED_MS 30000
#define ROUND_NS	 (4 * MILLISECOND_NS) /* when there was always more to receive for so long, it piles up */

uint32_t udp_server_now_s(const struct udp_server *server)
{
	return (uint32_t)(server->now_ns / SECOND_NS);
}

void udp_server_read_clock(struct udp_server *server)
{
	server->now_ns = clock_now_ns();
}

/* ---- the word of the loop ---- */

/* What is said by itself is said at once: its bytes do not stay. */
static void send_now(void *owner, const struct udp_way *to, const uint8_t *bytes, size_t len)
{
	struct udp_server *server = owner;
	struct relay_outbox *outbox = server->outboxes[to->socket];

	relay_outbox_add(outbox, RELAY_OUTBOX_ANSWER, to, bytes, len);
	relay_outbox_flush(outbox, udp_server_now_s(server));
}

bool udp_server_is_member(void *owner, const struct public_key *node_key)
{
	const struct udp_server *server = owner;

	return server->members && key_table_find(server->members, node_key) != NULL;
}

static void take_members(struct udp_server *server)
{
	struct key_table *members = atomic_exchange(&server->new_members, NULL);

	if (!members)
		return;
	udp_server_free_members(server->members);
	server->members = members;
	if (server->clients)
		udp_clients_recheck_members(server->clients, send_now);
}

/* As many as are due by now. */
static void send_some_away(struct udp_server *server)
{
	const uint64_t passed_ms = (server->now_ns - server->drain.began_ns) / MILLISECOND_NS;
	const uint64_t spread_ms = server->drain.spread_ms, all = server->drain.n_clients;

	if (spread_ms == NO_DRAIN)
		return;
	const uint32_t due = (uint32_t)(passed_ms < spread_ms ? all * passed_ms / spread_ms : all);
	udp_clients_send_away(server->clients, due - server->drain.n_told, RETRY_DRAINED_MS, server->now_ns, send_now);
	server->drain.n_told = due;
}

static void take_drain(struct udp_server *server)
{
	const uint64_t spread_ms = atomic_load(&server->new_drain);

	if (spread_ms == server->drain.spread_ms)
		return;
	server->drain.spread_ms = spread_ms;
	server->drain.began_ns = server->now_ns;
	server->drain.n_clients = udp_clients_counters(server->clients).clients;
	server->drain.n_told = 0;
	udp_clients_set_draining(server->clients, spread_ms != NO_DRAIN);
	send_some_away(server);
}

static void take_word(struct udp_server *server)
{
	uint64_t n;

	/*
	 * The word is taken in first: read after is_told was cleared, it could be the next one, of which nobody
	 * would hear. Then an exchange, which sees what was put before the words that it swallows.
	 */
	if (read(server->wake_fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		log_error("relay", "UDP: eventfd: %s", strerror(errno)); /* cannot be: it is there and whole */
	(void)atomic_exchange(&server->is_told, false);
	take_members(server);
	if (!server->clients)
		return;
	take_drain(server);
	udp_server_take_notes(server);
	udp_server_take_carried(server);
}

/* ---- what the loop is told ---- */

static struct udp_server_counters counters_now(const struct udp_server *server)
{
	struct udp_server_counters counters = { .stun = server->stun.counters,
						.out = server->out,
						.dropped_bridge = server->dropped_to_tls };

	if (server->clients)
		counters.clients = udp_clients_counters(server->clients);
	counters.stun.answered = server->out.sent[RELAY_OUTBOX_STUN];
	counters.stun.send_failed = server->out.failed[RELAY_OUTBOX_STUN] + server->out.full[RELAY_OUTBOX_STUN];
	return counters;
}

static void publish(struct udp_server *server)
{
	const struct udp_server_counters counters = counters_now(server);
	uint64_t words[N_COUNTERS];

	memcpy(words, &counters, sizeof(words));
	for (size_t i = 0; i < N_COUNTERS; i++)
		atomic_store_explicit(&server->published[i], words[i], memory_order_relaxed);
}

/* Into a list that nobody has looked at, or a new one. */
static void publish_busiest(struct udp_server *server)
{
	const struct udp_clients_busiest *busiest = udp_clients_busiest(server->clients);

	if (busiest->round == server->busiest_round)
		return;
	struct udp_clients_busiest *list = atomic_exchange(&server->new_busiest, NULL);
	if (!list)
		list = malloc(sizeof(*list));
	if (!list)
		return;
	server->busiest_round = busiest->round;
	*list = *busiest;
	atomic_store(&server->new_busiest, list);
}

/* ---- a turn ---- */

static void tick(struct udp_server *server)
{
	if (server->now_ns < server->tick_ns)
		return;
	server->tick_ns = server->now_ns + TICK_MS * MILLISECOND_NS;
	if (!server->clients)
		return;
	udp_clients_tick(server->clients, server->now_ns);
	send_some_away(server);
	publish_busiest(server);
}

/* What leaves from one client to another leaves as a train, the more there is of it in a turn. */
static void let_come_together(struct udp_server *server)
{
	const uint64_t pause_ns = gathering_pause_ns(&server->gathering, &server->turn);
	const struct timespec pause = { .tv_nsec = (long)pause_ns };

	if (pause_ns > 0)
		nanosleep(&pause, NULL);
}

static int await(struct udp_server *server)
{
	const uint64_t before_ns = clock_now_ns();
	const int n = poll(server->waits, 1 + server->n_sockets, TICK_MS);

	udp_server_read_clock(server);
	server->turn = (struct gathering_turn){ .idle_ns = server->now_ns - before_ns };
	return n;
}

static uint64_t n_sent(const struct udp_server *server)
{
	return server->out.sent[RELAY_OUTBOX_DATA] + server->out.sent[RELAY_OUTBOX_STUN];
}

/* What waits for a socket goes before what is new. True when there may be more to receive. */
static bool attend(struct udp_server *server, uint32_t i)
{
	const struct pollfd *wait = &server->waits[1 + i];

	if (wait->revents & POLLOUT)
		relay_outbox_resume(server->outboxes[i], udp_server_now_s(server));
	return wait->revents & ~POLLOUT ? udp_server_serve(server, &server->sockets[i]) : false;
}

static void end_round(struct udp_server *server)
{
	if (!server->turn.has_more)
		server->idle_ns = server->now_ns;
	if (!server->clients || server->now_ns - server->round_ns < ROUND_NS)
		return;
	udp_clients_end_round(server->clients, server->idle_ns < server->round_ns);
	server->round_ns = server->now_ns;
}

static void turn(struct udp_server *server)
{
	for (uint32_t i = 0; i < server->n_sockets; i++)
		server->waits[1 + i].events = relay_outbox_is_waiting(server->outboxes[i]) ? POLLIN | POLLOUT : POLLIN;
	const int n = await(server);
	const uint64_t n_packets = n_sent(server), n_messages = server->out.messages;

	if (n > 0 && server->waits[0].revents)
		take_word(server);
	for (uint32_t i = 0; n > 0 && i < server->n_sockets; i++)
		server->turn.has_more |= attend(server, i);
	end_round(server);
	tick(server);
	if (server->has_put)
		uv_async_send(&server->word);
	server->has_put = false;
	publish(server);
	server->turn.n_packets = n_sent(server) - n_packets;
	server->turn.n_messages = server->out.messages - n_messages;
	server->turn.took_ns = clock_now_ns() - server->now_ns;
	let_come_together(server);
}

void *udp_server_run(void *owner)
{
	struct udp_server *server = owner;

	prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); /* by default it doubles a short sleep */
	udp_server_read_clock(server);
	server->gathering = (struct gathering){ .patience = PATIENCE, .little_bytes = LITTLE_BYTES };
	while (!atomic_load(&server->is_stopping))
		turn(server);
	if (server->clients)
		udp_clients_say_restart(server->clients, RETRY_RESTART_MS, send_now);
	if (server->clients && server->options.save)
		udp_clients_save(server->clients, server->now_ns, &server->saved, &server->saved_len);
	atomic_store(&server->has_ended, true);
	uv_async_send(&server->word);
	return NULL;
}
