#include "relay/diglett/diglett_server.h"

#include "common/log.h"
#include "common/macros.h"
#include "common/source_limit.h"
#include "relay/diglett/diglett_keys.h"
#include "relay/diglett/gateway_script.h"
#include "relay/diglett/handshake_places.h"
#include "relay/diglett/tunnel.h"
#include "relay/diglett/v1_tunnel.h"
#include "relay/http_server.h"
#include "relay/tcp_listener.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 1000

#define V1_WARNING \
	"both directions of its connection have the same keystream, so that whoever hears it reads the token and what visitors say, " \
	"can change it unseen, and can be the server"
#define V1_WARNING_START \
	"Their connections have the same keystream in both directions, and no proof of who the server is: whoever hears one reads the " \
	"token and what visitors say, and can change it. Give such agents tokens of their own, on trusted networks only"

struct agent;

/* One of an agent's ports, on the loopback. */
struct agent_port {
	struct agent *agent;
	uint16_t number;
	struct host_name name;
	struct tcp_listener listener;
	bool is_held, is_closing; /* until the gateway does not lead there any more */
};

struct agent {
	struct diglett_server *server;
	struct agent *next;
	struct tunnel *tunnel; /* NULL: closed */
	bool is_v1;	       /* its connection is this one, then, and the tunnel closes */
	struct v1_tunnel *v1;
	struct endpoint remote;
	uint64_t came_ms;
	uint8_t token[TOKEN_HASH_LEN]; /* of a node: its key's hash, which is no token's */
	bool is_node;
	struct identity node; /* who it is, then */
	int64_t since_s;
	uint8_t n_ports, n_listening;
	struct agent_port ports[DIGLETT_MAX_PORTS];
	bool is_let_in, was_refused, is_leaving;
};

struct diglett_server {
	uv_loop_t *loop;
	struct diglett_server_options options;
	struct noise_curve curve;
	struct noise_secret secret;
	struct noise_public public;
	struct tcp_listener listener;
	struct http_server *info;
	struct gateway *gateway;
	uv_timer_t tick;
	struct token_store tokens;
	struct diglett_members *members; /* NULL: none */
	void (*tokens_changed)(void *owner, int r, const struct error *error);
	void *tokens_owner;
	struct agent *agents;
	struct handshake_places handshakes; /* of agents that are neither let in nor leave */
	struct source_limit source_limit;   /* a handshake costs this thread two key agreements */
	uint32_t n_open; /* parts that must close before it is freed */
	struct diglett_server_counters counters;
	struct log_limit limit, v1_limit;
	bool is_stopping;
	void (*stopped)(void *owner);
	void *stopped_owner;
};

/* its end */

static void release(struct diglett_server *server)
{
	if (--server->n_open > 0)
		return;
	void (*stopped)(void *owner) = server->stopped;
	void *const owner = server->stopped_owner;

	noise_secret_wipe(&server->secret);
	noise_curve_deinit(&server->curve);
	token_store_deinit(&server->tokens);
	diglett_members_free(server->members);
	free(server);
	if (stopped)
		stopped(owner);
}

static void on_part_closed(void *owner)
{
	release(owner);
}

/* agents that leave */

static void free_agent_if_closed(struct agent *agent)
{
	struct diglett_server *const server = agent->server;
	struct agent **at = &server->agents;

	if (agent->tunnel || agent->v1 || agent->n_listening > 0)
		return;
	while (*at != agent)
		at = &(*at)->next;
	*at = agent->next;
	free(agent);
	release(server);
}

static void on_tunnel_closed(void *owner)
{
	struct agent *agent = owner;

	agent->tunnel = NULL;
	free_agent_if_closed(agent);
}

static void on_v1_closed(void *owner)
{
	struct agent *agent = owner;

	agent->v1 = NULL;
	free_agent_if_closed(agent);
}

/* Whichever of the two kinds its connection is. */
static void close_connection(struct agent *agent, uint8_t reason)
{
	if (!agent->is_v1)
		tunnel_close(agent->tunnel, reason, on_tunnel_closed);
	else if (agent->v1)
		v1_tunnel_close(agent->v1, on_v1_closed);
}

static struct tunnel_counters connection_counters(const struct agent *agent)
{
	if (!agent->is_v1)
		return tunnel_counters(agent->tunnel);
	return agent->v1 ? v1_tunnel_counters(agent->v1) : (struct tunnel_counters){ 0 };
}

static void answer_agent(struct agent *agent, const struct diglett_answer *answer)
{
	if (agent->is_v1)
		v1_tunnel_answer(agent->v1, answer);
	else
		tunnel_answer(agent->tunnel, answer);
}

static void on_port_closed(void *owner)
{
	struct agent_port *port = owner;

	port->agent->n_listening--;
	free_agent_if_closed(port->agent);
}

static void close_port(struct agent_port *port)
{
	port->is_held = false;
	if (port->is_closing)
		return;
	port->is_closing = true;
	tcp_listener_close(&port->listener, on_port_closed);
}

static void on_removed(void *owner, const struct host_name *name, uint16_t number)
{
	struct diglett_server *server = owner;

	for (struct agent *agent = server->agents; agent; agent = agent->next)
		for (uint8_t i = 0; i < agent->n_ports; i++)
			if (agent->ports[i].is_held && host_name_equal(&agent->ports[i].name, name) &&
			    tcp_listener_port(&agent->ports[i].listener) == number)
				close_port(&agent->ports[i]);
}

static void end_agent(struct agent *agent, uint8_t reason);

static bool is_noted(const struct agent *agent)
{
	for (uint8_t i = 0; i < agent->n_ports; i++)
		if (!gateway_is_noted(agent->server->gateway, &agent->ports[i].name))
			return false;
	return true;
}

/* They were let in while nobody knew yet that their names cannot be noted; they come again, and are told why not. */
static void on_unnoted(void *owner)
{
	struct diglett_server *server = owner;

	for (struct agent *agent = server->agents; agent; agent = agent->next)
		if (agent->is_let_in && !agent->is_leaving && !is_noted(agent)) {
			log_error("diglett", "the agent of %s is ended: its name cannot be noted", agent->ports[0].name.text);
			server->counters.ended++;
			end_agent(agent, MUX_REFUSED);
		}
}

/* Those that the gateway knows stay, for nobody, until it was told. */
static void give_up_ports(struct agent *agent)
{
	struct gateway *const gateway = agent->server->gateway;

	for (uint8_t i = 0; i < agent->n_ports; i++) {
		struct agent_port *port = &agent->ports[i];
		port->is_held = agent->is_let_in && gateway;
		if (port->is_held)
			gateway_remove(gateway, &port->name, tcp_listener_port(&port->listener));
		else
			close_port(port);
	}
}

static void end_agent(struct agent *agent, uint8_t reason)
{
	struct diglett_server *const server = agent->server;

	if (agent->is_leaving)
		return;
	agent->is_leaving = true; /* it counts no more, but for what it has carried */
	handshake_places_leave(&server->handshakes, agent);
	give_up_ports(agent);
	close_connection(agent, reason);
	struct tunnel_counters carried = connection_counters(agent);
	carried.visitors_now = 0;
	tunnel_counters_add(&server->counters.streams, &carried);
	if (agent->is_let_in)
		server->counters.agents_now--;
}

static void on_ended(void *owner, const struct error *why)
{
	struct agent *agent = owner;

	if (agent->is_let_in)
		log_info("diglett", "agent of %s has gone: %s", agent->ports[0].name.text, why->message);
	else
		log_limited(&agent->server->limit, LOG_LEVEL_INFO, "diglett", "agent from %s was not let in: %s",
			    endpoint_text(&agent->remote).s, why->message);
	if (agent->is_let_in)
		agent->server->counters.gone++;
	else if (!agent->was_refused)
		agent->server->counters.failed++;
	end_agent(agent, MUX_CLOSED);
}

/* tokens */

static bool may_have(const struct agent *agent, const struct host_name *name)
{
	const struct diglett_server *server = agent->server;

	return agent->is_node ? diglett_members_allow(server->members, &agent->node.node_key, name)
			      : token_store_allows(&server->tokens, agent->token, name);
}

static bool is_still_allowed(const struct agent *agent)
{
	for (uint8_t i = 0; i < agent->n_ports; i++)
		if (!may_have(agent, &agent->ports[i].name))
			return false;
	return true;
}

static void end_revoked(struct diglett_server *server)
{
	for (struct agent *agent = server->agents; agent; agent = agent->next)
		if (agent->is_let_in && !agent->is_leaving && !is_still_allowed(agent)) {
			log_info("diglett", "the %s of %s is valid no more", agent->is_node ? "grant" : "token",
				 agent->ports[0].name.text);
			server->counters.revoked++;
			end_agent(agent, MUX_REVOKED);
		}
}

static void read_tokens_again(struct diglett_server *server)
{
	if (token_store_look(&server->tokens))
		end_revoked(server);
}

static void on_tick(uv_timer_t *timer)
{
	read_tokens_again(timer->data);
}

/* agents that come */

static void reset_visitor(int fd)
{
	const struct linger now = { .l_onoff = 1, .l_linger = 0 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

static void on_visitor(void *owner, int fd, const struct endpoint *remote)
{
	struct agent_port *port = owner;

	if (port->agent->is_leaving) {
		reset_visitor(fd);
		return;
	}
	if (port->agent->is_v1)
		v1_tunnel_visit(port->agent->v1, fd, remote);
	else
		tunnel_visit(port->agent->tunnel, fd, port->number, remote);
}

/* The name as it is reached: without a dot it is one below our domain. */
static bool complete_name(const struct diglett_server *server, const struct host_name *name, struct host_name *ret)
{
	char text[2 * HOST_NAME_MAX_LEN + 2];

	if (name != ret)
		*ret = *name;
	if (strchr(name->text, '.'))
		return true;
	const int len = snprintf(text, sizeof(text), "%s.%s", name->text, server->options.domain);
	return server->options.domain[0] != '\0' && diglett_name_parse(text, (size_t)len, ret) == 0;
}

/* Also by one who has gone, as long as the gateway leads there. */
static bool is_held_by_another(const struct agent *newcomer, const struct host_name *name)
{
	for (const struct agent *agent = newcomer->server->agents; agent; agent = agent->next)
		for (uint8_t i = 0; i < agent->n_ports && agent->is_let_in; i++)
			if ((!agent->is_leaving || agent->ports[i].is_held) && host_name_equal(&agent->ports[i].name, name) &&
			    memcmp(agent->token, newcomer->token, TOKEN_HASH_LEN) != 0)
				return true;
	return false;
}

/* Who has this name, or NULL. */
static struct agent *find_holder(const struct diglett_server *server, const struct host_name *name)
{
	for (struct agent *agent = server->agents; agent; agent = agent->next)
		for (uint8_t i = 0; i < agent->n_ports && agent->is_let_in && !agent->is_leaving; i++)
			if (host_name_equal(&agent->ports[i].name, name))
				return agent;
	return NULL;
}

static int refuse(struct agent *agent, struct diglett_answer *answer, enum diglett_refusal why, const char *text)
{
	agent->was_refused = true;
	agent->server->counters.refused[why]++;
	answer->reason = MUX_REFUSED;
	snprintf(answer->text, sizeof(answer->text), "%.*s", MUX_MAX_TEXT, text);
	return -EACCES;
}

/* One text for what a stranger must not tell apart: a token that is none, and one for other names. */
static int judge_names(struct agent *agent, const struct diglett_request *request, struct diglett_answer *answer)
{
	const struct diglett_server *server = agent->server;

	for (uint8_t i = 0; i < request->n_ports; i++) {
		if (!complete_name(server, &request->names[i], &answer->names[i]))
			return refuse(agent, answer, DIGLETT_REFUSED_NAMES, "this server has no domain: ask for a whole name, with its dots");
		if (!may_have(agent, &answer->names[i]))
			return refuse(agent, answer, DIGLETT_REFUSED_TOKEN,
				      agent->is_node ? "this name is not granted to the node: p2pctl admin host add"
						     : "the token is not valid for this name");
		for (uint8_t j = 0; j < i; j++)
			if (host_name_equal(&answer->names[i], &answer->names[j]))
				return refuse(agent, answer, DIGLETT_REFUSED_NAMES, "the same name is asked for twice");
		if (is_held_by_another(agent, &answer->names[i]))
			return refuse(agent, answer, DIGLETT_REFUSED_NAME_HELD, "another agent has this name");
	}
	answer->n_ports = request->n_ports;
	return 0;
}

static bool gives_way(const struct agent *agent, const struct diglett_answer *answer)
{
	for (uint8_t i = 0; i < answer->n_ports; i++)
		for (uint8_t j = 0; j < agent->n_ports; j++)
			if (host_name_equal(&agent->ports[j].name, &answer->names[i]))
				return true;
	return false;
}

/* Has its token its part already? Those whose place it takes do not count. */
static bool has_token_too_many(const struct agent *newcomer, const struct diglett_answer *answer)
{
	uint32_t n_agents = 0, n_held = 0;

	for (const struct agent *agent = newcomer->server->agents; agent; agent = agent->next) {
		if (!agent->is_let_in || memcmp(agent->token, newcomer->token, TOKEN_HASH_LEN) != 0)
			continue;
		n_agents += agent->is_leaving || gives_way(agent, answer) ? 0 : 1;
		for (uint8_t i = 0; i < agent->n_ports; i++)
			n_held += agent->ports[i].is_held ? 1 : 0;
	}
	return n_agents >= DIGLETT_MAX_AGENTS_OF_TOKEN || n_held >= DIGLETT_MAX_HELD_OF_TOKEN;
}

static int judge_room(struct agent *agent, struct diglett_answer *answer)
{
	const struct diglett_server *server = agent->server;

	if (server->counters.agents_now >= DIGLETT_MAX_AGENTS)
		return refuse(agent, answer, DIGLETT_REFUSED_TOO_MANY, "too many agents");
	if (has_token_too_many(agent, answer))
		return refuse(agent, answer, DIGLETT_REFUSED_TOO_MANY, "too many agents of this token");
	if (server->gateway && !gateway_can_note(server->gateway))
		return refuse(agent, answer, DIGLETT_REFUSED_GATEWAY,
			      "the server cannot write down what it tells its gateway: its disk is full, or its state folder cannot be written");
	if (server->gateway && !gateway_has_room(server->gateway, answer->names, answer->n_ports))
		return refuse(agent, answer, DIGLETT_REFUSED_GATEWAY,
			      "the gateway has not yet been told of those before; try again later");
	return 0;
}

static int open_ports(struct agent *agent, struct diglett_answer *answer)
{
	const struct endpoint any = endpoint_from_v4(0x7f000001, 0);
	struct error error;

	for (uint8_t i = 0; i < answer->n_ports; i++) {
		struct agent_port *port = &agent->ports[i];
		*port = (struct agent_port){ .agent = agent, .number = i, .name = answer->names[i] };
		const struct tcp_listener_ports ports = { port, on_visitor };
		if (tcp_listener_open(&port->listener, agent->server->loop, &any, NULL, &ports, &error) < 0) {
			log_error("diglett", "%s", error.message);
			return refuse(agent, answer, DIGLETT_REFUSED_NO_PORT, "the server has no port left");
		}
		agent->n_listening++;
		agent->n_ports++;
	}
	return 0;
}

static void let_in(struct agent *agent, const struct diglett_request *request)
{
	struct diglett_server *const server = agent->server;

	agent->is_let_in = true;
	agent->since_s = (int64_t)time(NULL);
	handshake_places_leave(&server->handshakes, agent);
	server->counters.accepted++;
	server->counters.agents_now++;
	server->counters.of_v1 += agent->is_v1 ? 1 : 0;
	if (agent->is_v1)
		log_limited(&server->v1_limit, LOG_LEVEL_WARNING, "diglett",
			    "the agent of %s, from %s, speaks version 1: " V1_WARNING, agent->ports[0].name.text,
			    endpoint_text(&agent->remote).s);
	for (uint8_t i = 0; i < agent->n_ports; i++) {
		const uint16_t port = tcp_listener_port(&agent->ports[i].listener);
		log_info("diglett", "%s is at 127.0.0.1:%u, by the agent from %s", agent->ports[i].name.text, port,
			 endpoint_text(&agent->remote).s);
		if (server->gateway)
			gateway_add(server->gateway, &agent->ports[i].name, port, request->extra);
	}
}

static int identify_node(struct agent *agent, const struct node_badge *badge, struct diglett_answer *answer)
{
	static const char label[] = "diglett/2 node";
	uint8_t text[sizeof(label) + KEY_LEN];
	struct error error;

	if (diglett_members_read(agent->server->members, badge, tunnel_binding(agent->tunnel), (int64_t)time(NULL), &agent->node,
				 &error) != 0)
		return refuse(agent, answer, DIGLETT_REFUSED_NODE, error.message);
	memcpy(text, label, sizeof(label));
	memcpy(text + sizeof(label), agent->node.node_key.bytes, KEY_LEN);
	crypto_hash_sha256(agent->token, text, sizeof(text));
	agent->is_node = true;
	return 0;
}

static int identify(struct agent *agent, const struct diglett_request *request, struct diglett_answer *answer)
{
	if (request->badge.n_certificate > 0)
		return identify_node(agent, &request->badge, answer);
	token_hash(request->token, agent->token);
	return 0;
}

static void on_asked(void *owner, const struct diglett_request *request)
{
	struct agent *agent = owner;
	struct diglett_server *const server = agent->server;
	struct diglett_answer answer = { 0 };
	struct agent *holder;

	read_tokens_again(server); /* what was taken back lets nobody in any more */
	int r = identify(agent, request, &answer);
	if (r == 0)
		r = judge_names(agent, request, &answer);
	if (r == 0)
		r = judge_room(agent, &answer);
	if (r == 0)
		r = open_ports(agent, &answer);
	for (uint8_t i = 0; r == 0 && i < answer.n_ports; i++)
		if ((holder = find_holder(server, &answer.names[i]))) {
			server->counters.replaced++;
			end_agent(holder, MUX_REPLACED);
		}
	answer.is_accepted = r == 0;
	if (r == 0)
		let_in(agent, request);
	answer_agent(agent, &answer);
}

/* Of the time for all of its handshake; 1 at least. */
static uint32_t handshake_left_ms(const struct agent *agent)
{
	const uint32_t given = agent->server->options.handshake_ms;
	const uint64_t limit = given ? given : TUNNEL_HANDSHAKE_MS, gone = uv_now(agent->server->loop) - agent->came_ms;

	return gone < limit ? (uint32_t)(limit - gone) : 1;
}

/* Its tunnel closes, and what it has said is still in the socket. */
static void begin_v1(struct agent *agent)
{
	struct diglett_server *const server = agent->server;
	const struct v1_tunnel_ports ports = { .owner = agent, .asked = on_asked, .ended = on_ended,
					       .handshake_ms = handshake_left_ms(agent),
					       .stalled_ms = server->options.v1_stalled_ms };
	const int fd = tunnel_take_v1(agent->tunnel);

	agent->is_v1 = true;
	tunnel_close(agent->tunnel, MUX_CLOSED, on_tunnel_closed);
	if (fd < 0 || v1_tunnel_serve(server->loop, &server->curve, fd, &ports, &agent->v1) < 0) {
		server->counters.failed++;
		end_agent(agent, MUX_CLOSED);
	}
}

static void on_tunnel_ended(void *owner, const struct error *why)
{
	struct agent *agent = owner;

	if (why->code == -EPROTONOSUPPORT && agent->server->options.allow_v1)
		begin_v1(agent);
	else
		on_ended(agent, why);
}

static void on_accepted(void *owner, int fd, const struct endpoint *remote)
{
	struct diglett_server *server = owner;

	if (!source_limit_take(&server->source_limit, remote, uv_now(server->loop))) {
		server->counters.too_often++;
		close(fd);
		return;
	}
	struct agent *agent = calloc(1, sizeof(*agent));
	if (!agent)
		abort();
	*agent = (struct agent){ .server = server, .remote = *remote, .came_ms = uv_now(server->loop) };
	const struct tunnel_ports ports = { .owner = agent, .asked = on_asked, .ended = on_tunnel_ended,
					     .handshake_ms = server->options.handshake_ms,
					     .dead_ms = server->options.dead_ms,
					     .half_closed_ms = server->options.half_closed_ms };
	if (tunnel_serve(server->loop, &server->curve, &server->secret, fd, &ports, &agent->tunnel) < 0) {
		free(agent);
		return;
	}
	agent->next = server->agents;
	server->agents = agent;
	server->n_open++;
	struct agent *crowded_out = handshake_places_take(&server->handshakes, remote, agent);
	if (crowded_out) {
		server->counters.crowded_out++;
		end_agent(crowded_out, MUX_CLOSED);
	}
}

/* what p2pctl asks for */

static enum diglett_script_state script_state(const struct diglett_server *server, const struct host_name *name)
{
	if (!server->gateway)
		return DIGLETT_SCRIPT_NONE;
	switch (gateway_state(server->gateway, name)) {
	case GATEWAY_KNOWS:
		return DIGLETT_SCRIPT_HAS_TOLD;
	case GATEWAY_FAILED:
		return DIGLETT_SCRIPT_HAS_FAILED;
	case GATEWAY_TELLS:
		break;
	}
	return DIGLETT_SCRIPT_TELLS;
}

bool diglett_server_agent_at(const struct diglett_server *server, uint32_t i, struct diglett_agent_view *ret)
{
	const struct agent *agent = server->agents;

	while (agent && (!agent->is_let_in || agent->is_leaving || i-- > 0))
		agent = agent->next;
	if (!agent)
		return false;
	*ret = (struct diglett_agent_view){ .remote = agent->remote,
					    .key = agent->is_v1 ? v1_tunnel_remote_key(agent->v1)
								: tunnel_remote_key(agent->tunnel),
					    .since_s = agent->since_s,
					    .token = token_id(agent->token),
					    .label = token_store_label(&server->tokens, agent->token),
					    .node = agent->is_node ? agent->node.name : "",
					    .version = agent->is_v1 ? 1 : 2,
					    .streams = connection_counters(agent),
					    .n_ports = agent->n_ports };
	for (uint8_t j = 0; j < agent->n_ports; j++) {
		const struct agent_port *port = &agent->ports[j];
		ret->ports[j] = (struct diglett_port_view){ &port->name, tcp_listener_port(&port->listener),
							    script_state(server, &port->name) };
	}
	return true;
}

int diglett_server_end_agent(struct diglett_server *server, const struct host_name *name)
{
	struct host_name whole;
	struct agent *agent = complete_name(server, name, &whole) ? find_holder(server, &whole) : NULL;

	if (!agent)
		return -ENOENT;
	log_info("diglett", "the agent of %s is ended, as was asked", whole.text);
	server->counters.ended++;
	end_agent(agent, MUX_CLOSED);
	return 0;
}

const struct token_store *diglett_server_tokens(const struct diglett_server *server)
{
	return &server->tokens;
}

/* The part of it that writes is open no more, whatever came of it. */
static void on_tokens_changed(void *owner, int r, const struct error *error)
{
	struct diglett_server *server = owner;

	if (r == 0 && !server->is_stopping)
		end_revoked(server);
	server->tokens_changed(server->tokens_owner, r, error);
	release(server);
}

static void await_change(struct diglett_server *server, void (*changed)(void *owner, int r, const struct error *error),
			 void *owner)
{
	server->tokens_changed = changed;
	server->tokens_owner = owner;
	server->n_open++;
}

/* Of what is kept the next start must be able to read all. */
static int complete_pattern(const struct diglett_server *server, struct host_pattern *pattern, struct error *reterr)
{
	if (server->options.domain[0] == '\0' && !strchr(pattern->name.text, '.'))
		return error_set(reterr, -EINVAL, "this server has no domain: give whole names, with their dots");
	if (!complete_name(server, &pattern->name, &pattern->name) ||
	    (pattern->is_wildcard && pattern->name.len > HOST_PATTERN_MAX_WILDCARD_LEN))
		return error_set(reterr, -EINVAL, "one of the names is too long: with the server's domain it has more than %d characters",
				 HOST_NAME_MAX_LEN);
	return 0;
}

int diglett_server_create_token(struct diglett_server *server, struct token_entry *entry, struct token_secret *ret,
				void (*changed)(void *owner, int r, const struct error *error), void *owner,
				struct error *reterr)
{
	for (uint8_t i = 0; i < entry->n_patterns; i++) {
		const int bad = complete_pattern(server, &entry->patterns[i], reterr);
		if (bad != 0)
			return bad;
	}
	const int r = token_store_create(&server->tokens, entry, ret, on_tokens_changed, server, reterr);
	if (r == 0)
		await_change(server, changed, owner);
	return r;
}

int diglett_server_revoke_token(struct diglett_server *server, const char *id,
				void (*changed)(void *owner, int r, const struct error *error), void *owner,
				struct error *reterr)
{
	const int r = token_store_revoke(&server->tokens, id, on_tokens_changed, server, reterr);

	if (r == 0)
		await_change(server, changed, owner);
	return r;
}

void diglett_server_set_members(struct diglett_server *server, struct diglett_members *members_take)
{
	diglett_members_free(server->members);
	server->members = members_take;
	end_revoked(server);
}

const struct noise_public *diglett_server_key(const struct diglett_server *server)
{
	return &server->public;
}

struct endpoint diglett_server_listens(const struct diglett_server *server)
{
	struct endpoint listens = server->options.listen;

	listens.port = diglett_server_port(server);
	return listens;
}

const char *diglett_server_domain(const struct diglett_server *server)
{
	return server->options.domain;
}

/* /info */

static bool on_page(void *owner, const char *path, struct http_page *ret)
{
	const struct diglett_server *server = owner;
	char key[DIGLETT_PUBLIC_TEXT + 1];

	if (strcmp(path, "/info") != 0)
		return false;
	diglett_public_text(&server->public, key);
	*ret = (struct http_page){ .status = 200, .type = "application/json" };
	if (asprintf(&ret->text,
		     "{\"version\": \"" P2P_VERSION "\", \"publicKey\": \"%s\", \"protocols\": [\"" DIGLETT_PROLOGUE
		     "\"%s], \"port\": %u, \"domain\": \"%s\", \"maxPorts\": %d}\n",
		     key, server->options.allow_v1 ? ", \"diglett/1\"" : "", tcp_listener_port(&server->listener), server->options.domain, DIGLETT_MAX_PORTS) < 0)
		abort();
	return true;
}

/* its begin */

static int open_files(struct diglett_server *server, struct error *reterr)
{
	int r = diglett_key_load(server->options.key_file, &server->curve, &server->secret, reterr);

	if (r == 0 && !noise_public_of(&server->curve, &server->secret, &server->public))
		r = -EINVAL; /* not reached: the key was checked */
	if (r == 0)
		r = token_store_init(&server->tokens, server->loop, server->options.tokens_file ? server->options.tokens_file : "",
				     server->options.own_tokens_file, reterr);
	if (r == 0 && server->options.script[0] != '\0' && access(server->options.script, X_OK) != 0)
		r = error_set(reterr, -errno, "cannot run the gateway's script %s: %s", server->options.script, strerror(errno));
	return r;
}

static int open_sockets(struct diglett_server *server, struct error *reterr)
{
	const struct diglett_server_options *options = &server->options;
	const struct tcp_listener_ports ports = { server, on_accepted };
	const struct gateway_options gateway = { .script = options->script, .notes = options->notes_file,
						 .limit_ms = options->script_limit_ms,
						 .retry_ms = options->script_retry_ms,
						 .owner = server,
						 .removed = on_removed,
						 .unnoted = on_unnoted };
	const struct http_server_options info = { .loop = server->loop, .listen = options->info, .owner = server,
						  .page = on_page };

	int r = tcp_listener_open(&server->listener, server->loop, &options->listen, NULL, &ports, reterr);
	if (r < 0)
		return r;
	server->n_open++;
	if (!endpoint_is_none(&options->info)) {
		r = http_server_start(&info, &server->info, reterr);
		if (r < 0)
			return r;
		server->n_open++;
	}
	if (options->script[0] != '\0') {
		r = gateway_new(server->loop, &gateway, &server->gateway, reterr);
		if (r < 0)
			return r;
		server->n_open++;
	}
	return 0;
}

int diglett_server_start(uv_loop_t *loop, const struct diglett_server_options *options, struct diglett_server **ret,
			 struct error *reterr)
{
	struct diglett_server *server = calloc(1, sizeof(*server));

	if (!server || diglett_curve_init(&server->curve) < 0)
		abort();
	server->loop = loop;
	server->options = *options;
	server->n_open = 1;
	source_limit_init(&server->source_limit, DIGLETT_SOURCE_PER_S, DIGLETT_SOURCE_BURST);
	uv_timer_init(loop, &server->tick);
	server->tick.data = server;
	int r = open_files(server, reterr);
	if (r == 0)
		r = open_sockets(server, reterr);
	if (r < 0) {
		diglett_server_stop(server, NULL, NULL);
		return r;
	}
	uv_timer_start(&server->tick, on_tick, TICK_MS, TICK_MS);
	char key[DIGLETT_PUBLIC_TEXT + 1];
	diglett_public_text(&server->public, key);
	log_info("diglett", "agents are let in at TCP %s; public key %s", endpoint_text(&options->listen).s, key);
	if (options->allow_v1)
		log_warning("diglett", "allow_v1: agents of version 1 are let in, too. " V1_WARNING_START);
	*ret = server;
	return 0;
}

static void on_tick_closed(uv_handle_t *handle)
{
	release(handle->data);
}

void diglett_server_stop(struct diglett_server *server, void (*stopped)(void *owner), void *owner)
{
	server->is_stopping = true;
	server->stopped = stopped;
	server->stopped_owner = owner;
	for (struct agent *agent = server->agents; agent; agent = agent->next)
		end_agent(agent, MUX_CLOSED);
	uv_close((uv_handle_t *)&server->tick, on_tick_closed);
	if (server->listener.n_open > 0)
		tcp_listener_close(&server->listener, on_part_closed);
	if (server->info)
		http_server_stop(server->info, on_part_closed, server);
	if (server->gateway)
		gateway_close(server->gateway, on_part_closed, server);
}

uint16_t diglett_server_port(const struct diglett_server *server)
{
	return tcp_listener_port(&server->listener);
}

struct diglett_server_counters diglett_server_counters(const struct diglett_server *server)
{
	struct diglett_server_counters counters = server->counters;

	for (const struct agent *agent = server->agents; agent; agent = agent->next)
		if (!agent->is_leaving) {
			const struct tunnel_counters carried = connection_counters(agent);
			tunnel_counters_add(&counters.streams, &carried);
		}
	if (server->gateway)
		counters.gateway = gateway_counters(server->gateway);
	return counters;
}
