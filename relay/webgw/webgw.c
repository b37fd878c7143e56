#include "relay/webgw/webgw.h"

#include "common/log.h"
#include "common/macros.h"
#include "relay/frontdoor/link.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULE	  "webgw"
#define MAX_VISIT	    640 /* bytes of what an agent is told of one visitor */
#define MAX_QUEUE	    (SUBSCRIPTIONS_MAX_PENDING * MAX_VISIT) /* to one agent: all that may wait may come in one turn */
#define SEND_BUFFER	    (16 * 1024) /* besides, in the kernel */
#define STALL_MS	    5000	/* as long as a visitor waits */
#define FORGIVE_MS	    30000	/* one wrong secret of a connection */
#define MAX_UNPROVEN	    1024
#define MAX_UNPROVEN_SOURCE 64
#define MAX_LEFT	    SUBSCRIPTIONS_MAX_HOSTS
#define LEFT_MS		    10000 /* by then who waited for an agent when the host went is carried, or gone */

/* Where agents connect. */
struct entrance {
	struct webgw *webgw;
	bool is_tls;
	struct websocket_server *server; /* NULL: closed */
};

struct webgw {
	uv_loop_t *loop;
	struct webgw_ports ports;
	struct subscriptions *subscriptions;
	struct entrance plain, tls;
	struct webgw_counters counters; /* those that are not the server's */
	struct log_limit guesses_limit, ungranted_limit, strangers_limit, visitors_limit, agents_limit; /* one each: who makes many of a line hides no other */
	struct link left; /* gates of members' hosts that have gone, by when: visitors may still be carried */
	uint32_t n_left;
};

/*
 * What stands before one host. Of a member's it is kept when the host goes with its last agent, until nobody is carried any
 * more: for who has the host next; and if the grant of who went last is taken back, for those who are carried.
 */
struct host_gate {
	struct door_gate gate;
	struct host_pattern host;
	struct identity last; /* a member that went, and was one of its agents: the last one */
	bool is_expected;     /* none was there since this process began */
	struct link among_left;
	uint64_t left_ms;
};

/* Who has opened a WebSocket: the data of it. */
struct agent {
	const struct entrance *entrance;
	uint32_t n_wrong;
	uint64_t forgiven_ms; /* up to when */
	uint32_t n_subscriptions;
	bool is_proven; /* it knew a secret, once */
	bool wants_visitors; /* to be told who they are, of all its hosts; within TLS alone */
	uint64_t since_ms;
};

/* ---- hosts' gates ---- */

static void free_gate(struct door_gate *gate)
{
	free(container_of(gate, struct host_gate, gate));
}

static struct door_gate *new_gate(const struct host_pattern *host, bool is_members)
{
	struct host_gate *gate = calloc(1, sizeof(*gate));

	if (!gate)
		abort();
	gate->host = *host;
	gate->gate.free = free_gate;
	gate->gate.is_members = is_members;
	door_gate_init(&gate->gate);
	return &gate->gate;
}

static void give_gate(struct webgw *webgw, const struct host_pattern *host, bool is_members)
{
	void **gate = subscriptions_data(webgw->subscriptions, host);

	if (gate && !*gate)
		*gate = new_gate(host, is_members);
}

/* ---- gates of members' hosts that have gone ---- */

static void forget_left(struct webgw *webgw, struct host_gate *gate)
{
	link_remove(&gate->among_left);
	webgw->n_left--;
	door_gate_let_go(&gate->gate);
}

/* Those through which nobody is carried any more. */
static void sweep_left(struct webgw *webgw)
{
	const uint64_t now_ms = uv_now(webgw->loop);
	struct link *at = webgw->left.after, *next;

	for (; at != &webgw->left; at = next) {
		struct host_gate *gate = container_of(at, struct host_gate, among_left);
		next = at->after;
		if (now_ms >= gate->left_ms + LEFT_MS && door_gate_counters(&gate->gate).visitors_now == 0)
			forget_left(webgw, gate);
	}
}

/* The oldest of those through which nobody is carried, or of all. */
static struct host_gate *first_to_forget(const struct webgw *webgw)
{
	for (struct link *at = webgw->left.after; at != &webgw->left; at = at->after) {
		struct host_gate *gate = container_of(at, struct host_gate, among_left);
		if (door_gate_counters(&gate->gate).visitors_now == 0)
			return gate;
	}
	return container_of(link_first(&webgw->left), struct host_gate, among_left);
}

/* There is one less to be looked after, whose visitors are cut: better than that nobody could cut them. */
static void make_room_for_left(struct webgw *webgw)
{
	sweep_left(webgw);
	if (webgw->n_left < MAX_LEFT)
		return;
	struct host_gate *gate = first_to_forget(webgw);
	door_gate_shut(&gate->gate);
	forget_left(webgw, gate);
}

static void put_left(struct webgw *webgw, struct host_gate *gate)
{
	gate->left_ms = uv_now(webgw->loop);
	link_put_last(&webgw->left, &gate->among_left);
	webgw->n_left++;
}

static void leave_gate(struct webgw *webgw, struct door_gate *gate_take)
{
	make_room_for_left(webgw);
	put_left(webgw, container_of(gate_take, struct host_gate, gate));
}

static struct host_gate *find_left(const struct webgw *webgw, const struct host_pattern *host)
{
	for (struct link *at = webgw->left.after; at != &webgw->left; at = at->after) {
		struct host_gate *left = container_of(at, struct host_gate, among_left);
		if (left->host.is_wildcard == host->is_wildcard && host_name_equal(&left->host.name, &host->name))
			return left;
	}
	return NULL;
}

/* The host is back: with who is still carried, and what was counted. */
static void give_members_gate(struct webgw *webgw, const struct host_pattern *host)
{
	void **gate = subscriptions_data(webgw->subscriptions, host);
	struct host_gate *left = gate && !*gate ? find_left(webgw, host) : NULL;

	if (!left) {
		give_gate(webgw, host, true);
		return;
	}
	*gate = &left->gate;
	link_remove(&left->among_left);
	webgw->n_left--;
}

static bool is_any_granted(const struct webgw *webgw, const struct host_pattern *host)
{
	return webgw->ports.is_any_granted && webgw->ports.is_any_granted(webgw->ports.owner, host);
}

struct door_gate *webgw_expect_host(struct webgw *webgw, const struct host_pattern *host)
{
	struct host_gate *gate = find_left(webgw, host);

	if (gate)
		return &gate->gate;
	if (webgw->n_left >= MAX_LEFT || subscriptions_data(webgw->subscriptions, host) || !is_any_granted(webgw, host))
		return NULL;
	gate = container_of(new_gate(host, true), struct host_gate, gate);
	gate->is_expected = true;
	put_left(webgw, gate);
	return &gate->gate;
}

static bool may_stay(const struct webgw *webgw, const struct host_gate *gate)
{
	return gate->is_expected ? is_any_granted(webgw, &gate->host)
				 : webgw->ports.is_granted(webgw->ports.owner, &gate->last, &gate->host);
}

/* The grant of who served it last is no more. */
static void cut_left(struct webgw *webgw)
{
	struct link *at = webgw->left.after, *next;

	for (; at != &webgw->left; at = next) {
		struct host_gate *gate = container_of(at, struct host_gate, among_left);
		next = at->after;
		if (may_stay(webgw, gate))
			continue;
		door_gate_shut(&gate->gate);
		forget_left(webgw, gate);
	}
}

static void note_gone_of(struct webgw *webgw, uint32_t i, const struct host_pattern *host, const struct websocket *ws)
{
	struct subscription_facts facts[SUBSCRIPTIONS_MAX_OF_HOST];
	const uint32_t n = subscriptions_of_host(webgw->subscriptions, i, 0, facts, SUBSCRIPTIONS_MAX_OF_HOST);
	void **gate = subscriptions_data(webgw->subscriptions, host);

	for (uint32_t j = 0; j < n; j++) {
		struct host_gate *of_host = container_of((struct door_gate *)*gate, struct host_gate, gate);
		if (facts[j].owner != ws)
			continue;
		of_host->last = *websocket_identity(ws);
		of_host->is_expected = false;
	}
}

/* Before its subscriptions go, or one of them: of each host that it has as a member. */
static void note_gone(struct webgw *webgw, const struct websocket *ws)
{
	struct host_pattern host;

	if (!websocket_identity(ws))
		return;
	for (uint32_t i = 0; subscriptions_host_at(webgw->subscriptions, i, &host, NULL); i++)
		if (subscriptions_is_members(webgw->subscriptions, i))
			note_gone_of(webgw, i, &host, ws);
}

/* ---- hosts that come and go ---- */

/* With its subscribers. Who holds its gate besides goes on. */
static bool take_host_out(struct webgw *webgw, const struct host_pattern *host)
{
	void **gate = subscriptions_data(webgw->subscriptions, host);

	if (gate)
		door_gate_let_go(*gate);
	return subscriptions_remove_host(webgw->subscriptions, host);
}

/*
 * Members' hosts that nobody serves: whoever else has them gets their visitors. Those who are carried go on, whose gates
 * stay open; it may be but a moment until their agent is back.
 */
static void drop_empty(struct webgw *webgw)
{
	const uint32_t n_before = subscriptions_n_hosts(webgw->subscriptions);
	struct host_pattern host;

	for (uint32_t i = 0; subscriptions_host_at(webgw->subscriptions, i, &host, NULL);) {
		if (!subscriptions_is_members(webgw->subscriptions, i) || subscriptions_count(webgw->subscriptions, &host) > 0) {
			i++;
			continue;
		}
		leave_gate(webgw, *subscriptions_data(webgw->subscriptions, &host));
		(void)subscriptions_remove_host(webgw->subscriptions, &host); /* another has its place now */
	}
	if (subscriptions_n_hosts(webgw->subscriptions) != n_before)
		webgw->ports.changed(webgw->ports.owner);
}

/* ---- agents ---- */

/* At once: nobody is told of visitors any more by a connection that has to end. */
static void end_agent(struct webgw *webgw, struct websocket *ws, const char *why)
{
	note_gone(webgw, ws);
	subscriptions_drop_owner(webgw->subscriptions, ws);
	websocket_abort(ws, why);
}

static void send_and_free(struct webgw *webgw, struct websocket *ws, char *text)
{
	if (websocket_send(ws, text, strlen(text)) == -ENOBUFS) {
		webgw->counters.ended++;
		end_agent(webgw, ws, "it asks, and does not read the answers");
	}
	free(text);
}

static void refuse(struct webgw *webgw, struct websocket *ws, const struct rpc_id *id, int code, const char *message)
{
	send_and_free(webgw, ws, webgw_print_error(id, code, message));
}

static void forgive(struct agent *agent, uint64_t now_ms)
{
	const uint64_t n = (now_ms - agent->forgiven_ms) / FORGIVE_MS;

	agent->forgiven_ms += n * FORGIVE_MS;
	agent->n_wrong -= n < agent->n_wrong ? (uint32_t)n : agent->n_wrong;
}

/* Who tries secrets is sent away; the next connection is one of those that are rate limited. A member guesses nothing. */
static void count_wrong(struct webgw *webgw, struct websocket *ws, bool has_secret)
{
	struct agent *agent = websocket_data(ws);

	webgw->counters.wrong++;
	forgive(agent, uv_now(webgw->loop));
	agent->n_wrong += has_secret;
	if (agent->n_wrong < WEBGW_MAX_WRONG)
		return;
	note_gone(webgw, ws);
	subscriptions_drop_owner(webgw->subscriptions, ws);
	drop_empty(webgw);
	websocket_close(ws, "too many wrong secrets");
}

/* Who has none any more is as one that has not subscribed yet: else who knows one host's secret takes all places. */
static void forget_subscription(struct websocket *ws)
{
	struct agent *agent = websocket_data(ws);

	if (--agent->n_subscriptions == 0)
		websocket_unprove(ws);
}

static void unsubscribe(struct webgw *webgw, struct websocket *ws, const struct webgw_request *request)
{
	if (subscriptions_owner(webgw->subscriptions, request->subscription) == ws)
		note_gone(webgw, ws);
	const bool was_there = subscriptions_unregister(webgw->subscriptions, ws, request->subscription);
	if (was_there) {
		forget_subscription(ws);
		drop_empty(webgw);
	}
	send_and_free(webgw, ws, webgw_print_unsubscribed(&request->id, was_there));
}

static void accept_agent(struct webgw *webgw, struct websocket *ws, const struct webgw_request *request, int64_t id,
			 bool is_new)
{
	const struct endpoint remote = websocket_remote(ws);
	struct agent *agent = websocket_data(ws);

	agent->is_proven = true;
	const bool is_told_visitors = request->wants_visitors && agent->entrance->is_tls;
	agent->wants_visitors |= is_told_visitors;
	websocket_prove(ws);
	if (is_new)
		log_limited(&webgw->agents_limit, LOG_LEVEL_INFO, MODULE, "%s%s: an agent at %s",
			    request->host.is_wildcard ? "*." : "", request->host.name.text, endpoint_text(&remote).s);
	send_and_free(webgw, ws, is_told_visitors ? webgw_print_telling_subscription(&request->id, id)
						   : webgw_print_subscription(&request->id, id));
}

/* A member, by its certificate, for a host that is granted to it; nobody else has it, by a secret or otherwise. */
static int enter_as_member(struct webgw *webgw, struct websocket *ws, const struct webgw_request *request, int64_t *ret_id)
{
	const struct identity *who = websocket_identity(ws);

	if (!webgw->ports.is_granted || !webgw->ports.is_granted(webgw->ports.owner, who, &request->host))
		return SUBSCRIPTIONS_UNKNOWN_HOST;
	const uint32_t n_before = subscriptions_n_hosts(webgw->subscriptions);
	switch (subscriptions_add_members_host(webgw->subscriptions, &request->host)) {
	case 0:
		break;
	case -EEXIST:
		return SUBSCRIPTIONS_WRONG_SECRET;
	default:
		return SUBSCRIPTIONS_FULL;
	}
	give_members_gate(webgw, &request->host);
	const int r = subscriptions_register_member(webgw->subscriptions, &request->host, ws, ret_id);
	if (r != 0)
		drop_empty(webgw);
	else if (subscriptions_n_hosts(webgw->subscriptions) != n_before)
		webgw->ports.changed(webgw->ports.owner);
	return r;
}

static int enter(struct webgw *webgw, struct websocket *ws, const struct webgw_request *request, int64_t *ret_id)
{
	return request->has_secret ? subscriptions_register(webgw->subscriptions, &request->host, request->secret_hash, ws, ret_id)
				   : enter_as_member(webgw, ws, request, ret_id);
}

static void subscribe(struct webgw *webgw, struct websocket *ws, const struct webgw_request *request)
{
	const struct endpoint remote = websocket_remote(ws);
	const uint32_t n_before = subscriptions_count(webgw->subscriptions, &request->host);
	struct agent *agent = websocket_data(ws);
	uint32_t n_new;
	int64_t id = 0;

	switch (enter(webgw, ws, request, &id)) {
	case 0: /* one that it had is none more */
		n_new = subscriptions_count(webgw->subscriptions, &request->host) - n_before;
		agent->n_subscriptions += n_new;
		accept_agent(webgw, ws, request, id, n_new > 0);
		return;
	case SUBSCRIPTIONS_UNKNOWN_HOST:
		refuse(webgw, ws, &request->id, WEBGW_UNKNOWN_HOST, "Unknown host");
		break;
	case SUBSCRIPTIONS_WRONG_SECRET:
		refuse(webgw, ws, &request->id, WEBGW_WRONG_SECRET, "Wrong secret");
		break;
	default:
		refuse(webgw, ws, &request->id, RPC_BUSY, "Too many agents");
		return;
	}
	log_limited(request->has_secret ? &webgw->guesses_limit : &webgw->ungranted_limit, LOG_LEVEL_WARNING, MODULE,
		    "%s%s: unknown host or wrong secret of an agent at %s", request->host.is_wildcard ? "*." : "",
		    request->host.name.text, endpoint_text(&remote).s);
	count_wrong(webgw, ws, request->has_secret);
}

/* Where it reaches us, as it got here. */
static uint16_t port_for(const struct webgw *webgw, const struct websocket *ws)
{
	const struct agent *agent = websocket_data(ws);
	const struct webgw_ports *ports = &webgw->ports;

	return websocket_was_taken(ws) && ports->shared_port ? ports->shared_port(ports->owner)
							      : ports->dial_back_port(ports->owner, agent->entrance->is_tls);
}

/* Connections that it will make now, for visitors that will come. */
static void prepare(struct webgw *webgw, struct websocket *ws, const struct webgw_request *request)
{
	uint8_t secrets[WEBGW_PREPARE_MAX][WEBGW_EPHEMERAL_LEN];
	const struct agent *agent = websocket_data(ws);
	const struct webgw_ports *ports = &webgw->ports;

	if (!agent->entrance->is_tls || !ports->prepare) {
		refuse(webgw, ws, &request->id, RPC_METHOD_NOT_FOUND, "Method not found");
		return;
	}
	if (subscriptions_owner(webgw->subscriptions, request->subscription) != ws) {
		refuse(webgw, ws, &request->id, RPC_NOT_FOUND, "No such subscription");
		return;
	}
	const uint32_t n = ports->prepare(ports->owner, request->subscription, request->count, secrets);
	char *text = webgw_print_prepared(&request->id, n, secrets, port_for(webgw, ws));
	if (websocket_send(ws, text, strlen(text)) == -ENOBUFS) {
		webgw->counters.ended++;
		end_agent(webgw, ws, "it asks, and does not read the answers");
	}
	sodium_memzero(text, strlen(text));
	sodium_memzero(secrets, sizeof(secrets));
	free(text);
}

static bool is_member(const struct websocket *ws)
{
	const struct agent *agent = websocket_data(ws);
	const struct identity *who = agent->entrance->is_tls ? websocket_identity(ws) : NULL;

	return who && who->name[0] != '\0';
}

static void on_message(void *owner, struct websocket *ws, const char *text, size_t len)
{
	struct webgw *webgw = ((const struct entrance *)owner)->webgw;
	struct webgw_request request;
	struct error error = { 0 };
	const int r = webgw_request_read(text, len, &request, &error);

	if (r != 0)
		refuse(webgw, ws, &request.id, r, error.message);
	else if (request.method == WEBGW_REGISTER && !request.has_secret && !is_member(ws))
		refuse(webgw, ws, &request.id, RPC_INVALID_PARAMS, "named parameters: host and hex_secret, both strings");
	else if (request.method == WEBGW_REGISTER)
		subscribe(webgw, ws, &request);
	else if (request.method == WEBGW_PREPARE)
		prepare(webgw, ws, &request);
	else
		unsubscribe(webgw, ws, &request);
}

static void on_opened(void *owner, struct websocket *ws)
{
	struct agent *agent = calloc(1, sizeof(*agent));

	if (!agent)
		abort();
	agent->entrance = owner;
	agent->since_ms = agent->forgiven_ms = uv_now(agent->entrance->webgw->loop);
	websocket_set_data(ws, agent);
}

static void on_closed(void *owner, struct websocket *ws, const char *why)
{
	struct webgw *webgw = ((const struct entrance *)owner)->webgw;
	const struct endpoint remote = websocket_remote(ws);
	struct agent *agent = websocket_data(ws);

	if (agent->n_subscriptions > 0)
		note_gone(webgw, ws);
	subscriptions_drop_owner(webgw->subscriptions, ws);
	if (agent->n_subscriptions > 0)
		drop_empty(webgw);
	if (agent->is_proven)
		log_info(MODULE, "an agent is gone: %s: %s", endpoint_text(&remote).s, why);
	else
		log_limited(&webgw->strangers_limit, LOG_LEVEL_INFO, MODULE, "%s is gone, and had not subscribed: %s",
			    endpoint_text(&remote).s, why);
	free(agent);
}

/* ---- visitors ---- */

static bool tell(struct webgw *webgw, struct websocket *ws, int64_t id, const struct dial_wanted *wanted)
{
	struct webgw_visit visit = { .port = wanted->port, .host = wanted->host, .listening_port = port_for(webgw, ws) };

	if (((const struct agent *)websocket_data(ws))->wants_visitors)
		visit.visitor = wanted->visitor;
	memcpy(visit.secret, wanted->secret, sizeof(visit.secret));
	char *text = webgw_print_visit(id, &visit);
	const bool is_told = websocket_send(ws, text, strlen(text)) == 0;
	sodium_memzero(text, strlen(text));
	sodium_memzero(&visit, sizeof(visit));
	free(text);
	return is_told;
}

static bool hand_or_tell(struct webgw *webgw, struct websocket *ws, int64_t id, const struct dial_wanted *wanted)
{
	const struct agent *agent = websocket_data(ws);
	const struct webgw_ports *ports = &webgw->ports;

	if (agent->entrance->is_tls && ports->hand && ports->hand(ports->owner, id, wanted))
		return true;
	return tell(webgw, ws, id, wanted);
}

/* Of that health: whose turn it is, if it can be told; else the next one. 0: nobody. */
static int64_t tell_one_of(struct webgw *webgw, enum subscriptions_health health, const struct dial_wanted *wanted,
			   bool *is_asked)
{
	const uint64_t now_ms = uv_now(webgw->loop);
	int64_t id = 0;

	for (int i = 0; i < SUBSCRIPTIONS_MAX_OF_HOST; i++) {
		struct websocket *ws = subscriptions_pick(webgw->subscriptions, &wanted->host, health, now_ms, &id);
		if (!ws) /* all were asked */
			break;
		*is_asked = true;
		if (websocket_stalled_ms(ws) >= STALL_MS) {
			webgw->counters.ended++;
			end_agent(webgw, ws, "it does not read what it is told");
			continue;
		}
		if (hand_or_tell(webgw, ws, id, wanted)) {
			subscriptions_told(webgw->subscriptions, id, now_ms);
			return id;
		}
		subscriptions_pass_over(webgw->subscriptions, id);
	}
	return 0;
}

/* Who rests only if nobody else can be told. */
static int64_t tell_somebody(struct webgw *webgw, const struct dial_wanted *wanted)
{
	bool is_asked = false;
	subscriptions_begin(webgw->subscriptions);
	int64_t id = tell_one_of(webgw, SUBSCRIPTIONS_HEALTHY, wanted, &is_asked);
	if (id == 0)
		id = tell_one_of(webgw, SUBSCRIPTIONS_RESTING, wanted, &is_asked);
	webgw->counters.not_read += id == 0 && is_asked;
	webgw->counters.nobody += id == 0 && !is_asked;
	return id;
}

/* What is sent goes out after the answer: the door knows whose the visitor is before the agent can be there. */
void webgw_wanted(struct webgw *webgw, const struct dial_wanted *wanted)
{
	const int64_t id = tell_somebody(webgw, wanted);

	webgw->counters.told += id != 0;
	webgw->ports.answer(webgw->ports.owner, wanted->ticket, id, subscriptions_tally(webgw->subscriptions, id));
	if (id == 0)
		log_limited(&webgw->visitors_limit, LOG_LEVEL_INFO, MODULE, "no agent for a visitor of %s", wanted->host.text);
}

/* It is not counted as waiting for who is told: whose it is was said to the door, which says its end of that one. */
static bool tell_another(struct webgw *webgw, enum subscriptions_health health, const struct dial_wanted *wanted)
{
	int64_t id = 0;

	for (int i = 0; i < SUBSCRIPTIONS_MAX_OF_HOST; i++) {
		struct websocket *ws = subscriptions_pick(webgw->subscriptions, &wanted->host, health, uv_now(webgw->loop), &id);
		if (!ws)
			return false;
		if (websocket_stalled_ms(ws) < STALL_MS && tell(webgw, ws, id, wanted))
			return true;
		subscriptions_pass_over(webgw->subscriptions, id);
	}
	return false;
}

bool webgw_not_taken(struct webgw *webgw, int64_t subscription, const struct dial_wanted *wanted)
{
	struct websocket *ws = subscriptions_owner(webgw->subscriptions, subscription);

	if (ws && tell(webgw, ws, subscription, wanted))
		return true;
	subscriptions_begin(webgw->subscriptions);
	subscriptions_pass_over(webgw->subscriptions, subscription);
	return tell_another(webgw, SUBSCRIPTIONS_HEALTHY, wanted) || tell_another(webgw, SUBSCRIPTIONS_RESTING, wanted);
}

bool webgw_is_there(struct webgw *webgw, int64_t subscription)
{
	return subscriptions_owner(webgw->subscriptions, subscription) != NULL;
}

bool webgw_tells_visitors(struct webgw *webgw, int64_t subscription)
{
	const struct websocket *ws = subscriptions_owner(webgw->subscriptions, subscription);

	return ws && ((const struct agent *)websocket_data(ws))->wants_visitors;
}

void webgw_over(struct webgw *webgw, const struct dial_over *over)
{
	subscriptions_over(webgw->subscriptions, over->subscription, over->end, uv_now(webgw->loop));
}

/* ---- beginning and end ---- */

int webgw_add_host(struct webgw *webgw, const struct host_pattern *host, const uint8_t hash[WEBGW_HASH_LEN])
{
	const int r = subscriptions_add_host(webgw->subscriptions, host, hash);

	if (r == 0)
		give_gate(webgw, host, false);
	return r;
}

bool webgw_set_balance(struct webgw *webgw, const struct host_pattern *host, enum webgw_balance balance)
{
	return subscriptions_set_balance(webgw->subscriptions, host, balance);
}

static void forget_subscriptions_of(struct webgw *webgw, const struct host_pattern *host)
{
	struct subscription_facts facts[SUBSCRIPTIONS_MAX_OF_HOST];
	struct host_pattern at;

	for (uint32_t i = 0; subscriptions_host_at(webgw->subscriptions, i, &at, NULL); i++) {
		if (at.is_wildcard != host->is_wildcard || !host_name_equal(&at.name, &host->name))
			continue;
		const uint32_t n = subscriptions_of_host(webgw->subscriptions, i, 0, facts, SUBSCRIPTIONS_MAX_OF_HOST);
		for (uint32_t j = 0; j < n; j++)
			forget_subscription(facts[j].owner);
	}
}

bool webgw_remove_host(struct webgw *webgw, const struct host_pattern *host)
{
	void **gate = subscriptions_data(webgw->subscriptions, host);

	if (!gate)
		return false;
	forget_subscriptions_of(webgw, host);
	door_gate_shut(*gate);
	return take_host_out(webgw, host);
}

struct door_gate *webgw_host_at(const struct webgw *webgw, uint32_t i, struct host_pattern *ret)
{
	if (!subscriptions_host_at(webgw->subscriptions, i, ret, NULL))
		return NULL;
	return *subscriptions_data(webgw->subscriptions, ret);
}

bool webgw_host_facts(const struct webgw *webgw, uint32_t i, struct webgw_admin_host *ret)
{
	if (!subscriptions_host_at(webgw->subscriptions, i, &ret->host, ret->hash))
		return false;
	const struct door_gate *gate = *subscriptions_data(webgw->subscriptions, &ret->host);
	const struct door_gate_counters counters = door_gate_counters(gate);
	ret->balance = subscriptions_balance(webgw->subscriptions, i);
	ret->is_members = subscriptions_is_members(webgw->subscriptions, i);
	ret->read = counters.bytes_out;
	ret->written = counters.bytes_in;
	ret->visitors = counters.visitors;
	ret->visitors_now = counters.visitors_now;
	ret->n_clients = subscriptions_count(webgw->subscriptions, &ret->host);
	return true;
}

bool webgw_find_host(const struct webgw *webgw, const struct host_pattern *host, struct webgw_admin_host *ret)
{
	for (uint32_t i = 0; webgw_host_facts(webgw, i, ret); i++)
		if (ret->host.is_wildcard == host->is_wildcard && host_name_equal(&ret->host.name, &host->name))
			return true;
	return false;
}

struct json *webgw_list_clients(const struct webgw *webgw)
{
	struct subscription_facts facts[SUBSCRIPTIONS_MAX_OF_HOST];
	const uint64_t now_ms = uv_now(webgw->loop);
	struct json *list = json_array();
	struct host_pattern host;

	for (uint32_t i = 0; subscriptions_host_at(webgw->subscriptions, i, &host, NULL); i++) {
		const uint32_t n = subscriptions_of_host(webgw->subscriptions, i, now_ms, facts, SUBSCRIPTIONS_MAX_OF_HOST);
		for (uint32_t j = 0; j < n; j++) {
			const struct endpoint remote = websocket_remote(facts[j].owner);
			const struct agent *agent = websocket_data(facts[j].owner);
			json_append(list, webgw_admin_client_json(&facts[j], &remote, (now_ms - agent->since_ms) / 1000));
		}
	}
	return list;
}

struct webgw_counters webgw_counters(const struct webgw *webgw)
{
	const struct entrance *entrances[] = { &webgw->plain, &webgw->tls };
	struct webgw_counters counters = webgw->counters;

	for (size_t i = 0; i < ARRAY_LEN(entrances); i++) {
		if (!entrances[i]->server)
			continue;
		const struct websocket_server_counters server = websocket_server_counters(entrances[i]->server);
		counters.unproven += server.unproven + server.broken_handshakes;
		counters.made_room += server.made_room;
		counters.refused += server.refused_limit + server.refused_address + server.refused_rate;
	}
	return counters;
}

static int open_entrance(struct entrance *entrance, struct websocket_host *host, const struct endpoint *listen,
			 const struct tls_options *tls, struct error *reterr)
{
	struct websocket_server_options server = {
		.listen = *listen,
		.is_plain = !entrance->is_tls,
		.is_any_path = true,
		.max_connections = SUBSCRIPTIONS_MAX,
		.max_message = WEBGW_MAX_REQUEST,
		.max_queue = MAX_QUEUE,
		.send_buffer = SEND_BUFFER,
		.max_unproven = MAX_UNPROVEN,
		.max_unproven_source = MAX_UNPROVEN_SOURCE,
		.handler = { .owner = entrance, .opened = on_opened, .message = on_message, .closed = on_closed },
	};

	if (tls)
		server.tls = *tls;
	return websocket_server_new(host, &server, &entrance->server, reterr);
}

int webgw_open_tls(struct webgw *webgw, struct websocket_host *host, const struct endpoint *listen,
		   const struct tls_options *tls, struct error *reterr)
{
	return open_entrance(&webgw->tls, host, listen, tls, reterr);
}

void webgw_close_tls(struct webgw *webgw)
{
	webgw->tls.server = NULL;
}

void webgw_take(struct webgw *webgw, int fd_take, const struct endpoint *remote)
{
	if (webgw->tls.server)
		websocket_server_take(webgw->tls.server, fd_take, remote);
	else
		close(fd_take);
}

int webgw_set_certificate(struct webgw *webgw, const char *certificate_pem, const char *key_pem, struct error *reterr)
{
	return webgw->tls.server ? websocket_server_set_certificate(webgw->tls.server, certificate_pem, key_pem, reterr) : 0;
}

/* Of host i: who may not serve it any more. True: that was all who did, and not none. */
static bool let_go_of(struct webgw *webgw, uint32_t i, const struct host_pattern *host)
{
	struct subscription_facts facts[SUBSCRIPTIONS_MAX_OF_HOST];
	const uint32_t n = subscriptions_of_host(webgw->subscriptions, i, 0, facts, SUBSCRIPTIONS_MAX_OF_HOST);

	for (uint32_t j = 0; j < n; j++) {
		const struct identity *who = websocket_identity(facts[j].owner);
		if (who && webgw->ports.is_granted(webgw->ports.owner, who, host))
			continue;
		struct websocket *ws = facts[j].owner;
		if (subscriptions_unregister(webgw->subscriptions, ws, facts[j].id))
			forget_subscription(ws);
	}
	return n > 0 && subscriptions_count(webgw->subscriptions, host) == 0;
}

void webgw_recheck(struct webgw *webgw)
{
	struct host_pattern host;

	sweep_left(webgw);
	if (webgw->ports.is_granted)
		cut_left(webgw);
	for (uint32_t i = 0; subscriptions_host_at(webgw->subscriptions, i, &host, NULL);)
		if (subscriptions_is_members(webgw->subscriptions, i) && let_go_of(webgw, i, &host))
			(void)webgw_remove_host(webgw, &host); /* another has its place now */
		else
			i++;
}

int webgw_new(const struct webgw_options *options, struct webgw **ret, struct error *reterr)
{
	struct webgw *webgw = calloc(1, sizeof(*webgw));

	if (!webgw)
		abort();
	webgw->loop = websocket_host_loop(options->host);
	webgw->ports = options->ports;
	webgw->subscriptions = subscriptions_new();
	link_init_ring(&webgw->left);
	webgw->plain.webgw = webgw->tls.webgw = webgw;
	webgw->tls.is_tls = true;
	const int r = open_entrance(&webgw->plain, options->host, &options->listen, NULL, reterr);
	if (r != 0) {
		webgw_free(webgw);
		return r;
	}
	*ret = webgw;
	return 0;
}

void webgw_free(struct webgw *webgw)
{
	struct host_pattern host;
	struct door_gate *gate;

	if (!webgw)
		return;
	for (uint32_t i = 0; (gate = webgw_host_at(webgw, i, &host)); i++)
		door_gate_let_go(gate);
	while (webgw->n_left > 0)
		forget_left(webgw, container_of(link_first(&webgw->left), struct host_gate, among_left));
	subscriptions_free(webgw->subscriptions);
	free(webgw);
}
