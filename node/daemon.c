#include "node/daemon.h"

#include "common/file.h"
#include "common/log.h"
#include "common/membership.h"
#include "common/rpc.h"
#include "common/service.h"
#include "node/diglett/diglett_thread.h"
#include "node/webgw_agent_thread.h"
#include "node/engine.h"
#include "node/engine_settings.h"
#include "node/local_api.h"
#include "relay/http_server.h"
#include "relay/machine_limits.h"
#include "relay/public_node.h"
#include "relay/relay_metrics.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct node_daemon {
	struct p2p_engine *engine;
	struct local_api *api; /* NULL: not started, or closed */
	struct http_server *metrics; /* NULL: not served */
	struct diglett_thread *diglett; /* NULL: neither server nor agent */
	struct webgw_agent_thread *webgw_agent; /* NULL: none */
	bool is_public;
	int n_open;
	void (*stopped)(void *owner);
	void *stopped_owner;
};

/* A request of the local API that waits for the engine. */
struct waiting {
	struct node_daemon *daemon;
	local_api_request request;
};

static struct waiting *wait_for(struct node_daemon *daemon, local_api_request request)
{
	struct waiting *waiting = malloc(sizeof(*waiting));

	if (!waiting)
		abort();
	*waiting = (struct waiting){ .daemon = daemon, .request = request };
	return waiting;
}

/* ---- the local API's ports ---- */

static void on_status(void *owner, struct node_status *ret)
{
	const struct node_daemon *daemon = owner;
	const struct local_api_counters counters = local_api_counters(daemon->api);

	engine_fill_status(daemon->engine, ret);
	node_status_add_drop(ret, "local api: no request", counters.bad_lines + counters.long_lines);
	node_status_add_drop(ret, "local api: refused", counters.refused_uid + counters.refused_limit + counters.busy);
	node_status_add_drop(ret, "local api: slow client", counters.slow_clients);
	if (daemon->webgw_agent)
		webgw_agent_thread_status(daemon->webgw_agent, &ret->webgw_agent);
}

static void on_done(void *owner, int code, const char *message)
{
	struct waiting *waiting = owner;

	if (waiting->daemon->api && code == 0)
		local_api_done(waiting->daemon->api, waiting->request);
	else if (waiting->daemon->api)
		local_api_refuse(waiting->daemon->api, waiting->request,
				 code <= RPC_NOT_AUTHENTICATED ? code : RPC_INTERNAL_ERROR, message);
	free(waiting);
}

static void on_join(void *owner, local_api_request request, const struct join_link *link, const char *name)
{
	engine_join(((struct node_daemon *)owner)->engine, link, name, on_done, wait_for(owner, request));
}

static void on_leave(void *owner, local_api_request request)
{
	p2p_engine_leave(((struct node_daemon *)owner)->engine, on_done, wait_for(owner, request));
}

static void refuse_ping(const struct waiting *waiting, int code)
{
	char message[160];

	switch (code) {
	case RPC_NOT_FOUND:
		snprintf(message, sizeof(message), "no such peer; p2pctl status lists them");
		break;
	case RPC_UNAVAILABLE:
		snprintf(message, sizeof(message), "this node has no map yet; is it a member? p2pctl status");
		break;
	case -EPERM:
		snprintf(message, sizeof(message), "p2pnode may not send ICMP; it needs CAP_NET_RAW at start");
		break;
	default:
		snprintf(message, sizeof(message), "cannot send: %s", strerror(-code));
	}
	local_api_refuse(waiting->daemon->api, waiting->request,
			 code <= RPC_NOT_AUTHENTICATED ? code : RPC_INTERNAL_ERROR, message);
}

static void on_pinged(void *owner, int code, const struct node_ping_result *result)
{
	struct waiting *waiting = owner;

	if (waiting->daemon->api && code == 0)
		local_api_answer_ping(waiting->daemon->api, waiting->request, result);
	else if (waiting->daemon->api)
		refuse_ping(waiting, code);
	free(waiting);
}

static void on_ping(void *owner, local_api_request request, const struct local_api_ping *ping)
{
	engine_ping(((struct node_daemon *)owner)->engine, ping, on_pinged, wait_for(owner, request));
}

static void on_netchecked(void *owner)
{
	struct waiting *waiting = owner;
	struct node_netcheck netcheck;

	node_netcheck_init(&netcheck);
	if (waiting->daemon->api) {
		engine_fill_status(waiting->daemon->engine, &netcheck.status);
		netcheck.control_reachable = netcheck.status.control.connected;
		netcheck.udp_works = netcheck.status.nat != NODE_NAT_UDP_BLOCKED &&
				     netcheck.status.nat != NODE_NAT_UNKNOWN;
		for (uint32_t i = 0; i < netcheck.status.n_endpoints; i++)
			netcheck.udp_works |= netcheck.status.endpoints[i].kind == NODE_ENDPOINT_STUN;
		local_api_answer_netcheck(waiting->daemon->api, waiting->request, &netcheck);
	}
	node_netcheck_deinit(&netcheck);
	free(waiting);
}

static void on_netcheck(void *owner, local_api_request request)
{
	engine_netcheck(((struct node_daemon *)owner)->engine, on_netchecked, wait_for(owner, request));
}

static void refuse_no_relay(struct node_daemon *daemon, local_api_request request, int code)
{
	local_api_refuse(daemon->api, request, code,
			 code == RPC_NOT_FOUND
				 ? "this node serves no relay: put a line '[public]' into p2pnode.conf, and restart p2pnode"
				 : "this node serves no relay before it has joined a network: p2pctl join LINK");
}

static void on_relay_status(void *owner, local_api_request request, bool with_clients)
{
	struct node_daemon *daemon = owner;
	struct relay_status status;

	relay_status_init(&status);
	int r = engine_fill_relay_status(daemon->engine, with_clients, &status);
	if (r == 0)
		local_api_answer_relay_status(daemon->api, request, &status);
	else
		refuse_no_relay(daemon, request, r);
	relay_status_deinit(&status);
}

static void answer_drained(struct node_daemon *daemon, local_api_request request, int r)
{
	if (r == 0)
		local_api_done(daemon->api, request);
	else
		refuse_no_relay(daemon, request, r);
}

static void on_relay_drain(void *owner, local_api_request request, uint32_t deadline_s)
{
	struct node_daemon *daemon = owner;

	answer_drained(daemon, request, engine_drain_relay(daemon->engine, deadline_s));
}

static void on_relay_undrain(void *owner, local_api_request request)
{
	struct node_daemon *daemon = owner;

	answer_drained(daemon, request, engine_undrain_relay(daemon->engine));
}

static void answer_exposed(struct node_daemon *daemon, local_api_request request, int r, const struct error *error)
{
	if (r == 0)
		local_api_answer(daemon->api, request, engine_exposures_json(daemon->engine));
	else
		local_api_refuse(daemon->api, request, r, error->message);
}

static void on_expose(void *owner, local_api_request request, const struct exposure *exposure)
{
	struct node_daemon *daemon = owner;
	struct error error;

	answer_exposed(daemon, request, engine_expose(daemon->engine, exposure, &error), &error);
}

static void on_unexpose(void *owner, local_api_request request, const struct exposure *host)
{
	struct node_daemon *daemon = owner;
	struct error error;

	answer_exposed(daemon, request, engine_unexpose(daemon->engine, host, &error), &error);
}

static void on_exposures(void *owner, local_api_request request)
{
	struct node_daemon *daemon = owner;

	answer_exposed(daemon, request, 0, NULL);
}

static void on_diglett_answered(void *owner, int code, struct json *result_take, const char *message)
{
	struct waiting *waiting = owner;
	struct local_api *api = waiting->daemon->api;

	if (api && code == 0)
		local_api_answer(api, waiting->request, result_take);
	else if (code == 0)
		json_free(result_take);
	else if (api)
		local_api_refuse(api, waiting->request, code, message);
	free(waiting);
}

static void on_diglett(void *owner, local_api_request request, const struct diglett_order *order)
{
	struct node_daemon *daemon = owner;

	if (daemon->diglett)
		diglett_thread_order(daemon->diglett, order, on_diglett_answered, wait_for(daemon, request));
	else
		local_api_refuse(daemon->api, request, RPC_NOT_FOUND,
				 "this node is neither a diglett server nor an agent: put [diglett] or [diglett-agent] into "
				 "p2pnode.conf, and restart p2pnode");
}

/* ---- what the engine knows and diglett has to know ---- */

static void on_map_changed(void *owner)
{
	struct node_daemon *daemon = owner;

	if (!daemon->diglett || !diglett_thread_has_server(daemon->diglett))
		return;
	const struct map *map = engine_map(daemon->engine);
	const struct membership *membership = engine_membership(daemon->engine);
	diglett_thread_set_members(daemon->diglett,
				   map ? diglett_members_new(map, membership->network, membership->ca_pem) : NULL);
}

/* ---- life ---- */

static void on_changed(void *owner, enum p2p_engine_state state)
{
	log_info("node", "state: %s", p2p_engine_state_name(state));
}

/* Also when p2pnode is killed, the next one takes them up: systemd has them. */
static void on_listening(void *owner, const int *sockets, size_t n)
{
	service_keep_sockets(NULL, 0);
	if (n > 0)
		service_keep_sockets(sockets, n);
	else
		service_await_forgotten();
}

static bool on_is_followed(void *owner)
{
	(void)owner;
	return service_is_followed();
}

/* With the sockets that listen: who takes these up, or forgets them, does so with both. */
static void on_streams_left(void *owner, const int *descriptors, size_t n)
{
	(void)owner;
	service_keep_sockets(descriptors, n);
}

/* name: a path, or the name of a file in the folder of the node's own socket. */
static void place_beside(const char *socket, const char *name, char ret[PATH_MAX])
{
	const char *slash = name[0] == '/' ? NULL : strrchr(socket, '/');

	snprintf(ret, PATH_MAX, "%.*s%s", slash ? (int)(slash - socket) + 1 : 0, socket, name);
}

static int make_engine(struct node_daemon *daemon, const struct node_daemon_options *options, struct error *reterr)
{
	const struct p2p_engine_callbacks callbacks = { .owner = daemon, .changed = on_changed,
						       .listening = on_listening,
						       .is_followed = on_is_followed,
						       .streams_left = on_streams_left };
	struct engine_settings settings;
	struct error error = { 0 };

	int r = engine_settings_make(&settings, options->config, reterr);
	if (r != 0)
		return r;
	settings.options.state_dir = options->state_dir;
	settings.options.public_sockets = options->public_sockets;
	settings.options.n_public_sockets = options->n_public_sockets;
	char webgw_admin[PATH_MAX];
	place_beside(options->socket, options->config->webgw_admin, webgw_admin);
	settings.options.webgw_admin = options->config->webgw_admin[0] != '\0' ? webgw_admin : NULL;
	if (!options->config->is_public && options->n_public_sockets > 0)
		on_listening(daemon, NULL, 0);
	r = p2p_engine_new(options->loop, &settings.options, &callbacks, &daemon->engine, error.message,
			   sizeof(error.message));
	if (r == 0)
		r = p2p_engine_start(daemon->engine, error.message, sizeof(error.message));
	else
		daemon->engine = NULL;
	return r == 0 ? 0 : error_set(reterr, r, "%s", error.message);
}

static int make_api(struct node_daemon *daemon, const struct node_daemon_options *options, struct error *reterr)
{
	const struct local_api_ports ports = { .owner = daemon,
					       .status = on_status,
					       .join = on_join,
					       .leave = on_leave,
					       .ping = on_ping,
					       .netcheck = on_netcheck,
					       .relay_status = on_relay_status,
					       .relay_drain = on_relay_drain,
					       .relay_undrain = on_relay_undrain,
					       .expose = on_expose,
					       .unexpose = on_unexpose,
					       .exposures = on_exposures,
					       .diglett = on_diglett };
	char folder[PATH_MAX];
	const char *slash = strrchr(options->socket, '/');

	if (slash && slash != options->socket) {
		snprintf(folder, sizeof(folder), "%.*s", (int)(slash - options->socket), options->socket);
		int r = file_make_folder(folder, 0755, reterr);
		if (r != 0)
			return r;
	}
	return local_api_new(options->loop, options->socket, &ports, &daemon->api, reterr);
}

/* ---- for who runs a public node ---- */

static void check_machine(const struct node_daemon_options *options)
{
	const struct machine_wants wants = { .tls_clients = RELAY_SERVER_CLIENTS,
					     .udp_clients = MACHINE_UDP_CLIENTS,
					     .udp_buffer = RELAY_SOCKET_BUFFER,
					     .udp_send_buffer = RELAY_SEND_BUFFER,
					     .tls_port = options->config->tls_port,
					     .stun_port = options->config->stun_port,
					     .has_sockets = options->n_public_sockets > 0 };
	struct machine_warning warnings[MACHINE_MAX_WARNINGS];
	struct machine_facts facts;

	if (!options->config->is_public)
		return;
	machine_limits_read(&wants, &facts);
	uint32_t n = machine_limits_judge(&facts, &wants, warnings);
	for (uint32_t i = 0; i < n; i++)
		log_warning("relay", "%s", warnings[i].text);
}

static char *text_of(const char *format, const char *what)
{
	char *text;

	if (asprintf(&text, format, what) < 0)
		abort();
	return text;
}

/* Of a node that is an agent alone. */
static const char *agent_health(const struct node_daemon *daemon)
{
	const bool serves = daemon->webgw_agent && webgw_agent_thread_counters(daemon->webgw_agent).subscribed_now > 0;

	return serves ? NULL : "not serving: the webgw agent has no host; p2pctl status says why";
}

static const char *health(const struct node_daemon *daemon)
{
	return daemon->is_public ? engine_health(daemon->engine) : agent_health(daemon);
}

static bool on_page(void *owner, const char *path, struct http_page *ret)
{
	const struct node_daemon *daemon = owner;

	if (strcmp(path, "/metrics") == 0) {
		struct diglett_metrics diglett = { 0 };
		struct webgw_agent_counters agent = { 0 };
		if (daemon->diglett)
			diglett = diglett_thread_metrics(daemon->diglett);
		if (daemon->webgw_agent)
			agent = webgw_agent_thread_counters(daemon->webgw_agent);
		*ret = (struct http_page){ .status = 200, .type = RELAY_METRICS_TYPE,
					   .text = engine_metrics(daemon->engine, &diglett,
								  daemon->webgw_agent ? &agent : NULL) };
		return true;
	}
	if (strcmp(path, "/healthz") != 0)
		return false;
	const char *why = health(daemon);
	*ret = (struct http_page){ .status = why ? 503 : 200, .type = "text/plain; charset=utf-8",
				   .text = text_of("%s\n", why ? why : "ok") };
	return true;
}

/* A monitor that is not served is no reason not to serve others. */
static void make_metrics(struct node_daemon *daemon, const struct node_daemon_options *options)
{
	const struct endpoint *listen = &options->config->metrics;
	const struct http_server_options http = {
		.loop = options->loop, .listen = *listen, .owner = daemon, .page = on_page
	};
	struct error error;

	if (listen->port == 0)
		return;
	if (!endpoint_is_loopback(listen))
		log_warning("metrics", "served at %s, without TLS and to everybody who reaches that address",
			    endpoint_text(listen).s);
	if (http_server_start(&http, &daemon->metrics, &error) != 0)
		log_error("metrics", "not served: %s", error.message);
}

int node_daemon_start(const struct node_daemon_options *options, struct node_daemon **ret, struct error *reterr)
{
	struct node_daemon *daemon = calloc(1, sizeof(*daemon));
	int r;

	if (!daemon)
		abort();
	check_machine(options);
	daemon->is_public = options->config->is_public;
	r = make_engine(daemon, options, reterr);
	if (r == 0)
		r = make_api(daemon, options, reterr);
	if (r == 0)
		make_metrics(daemon, options);
	const struct diglett_settings *diglett = &options->config->diglett;
	if (r == 0 && (diglett->is_server || diglett->is_agent))
		r = diglett_thread_start(options->loop, diglett, options->state_dir, &daemon->diglett, reterr);
	if (r == 0 && options->config->webgw_agent.is_agent)
		r = webgw_agent_thread_start(options->loop, &options->config->webgw_agent, options->state_dir,
					     &daemon->webgw_agent, reterr);
	if (r == 0) {
		engine_watch_map(daemon->engine, on_map_changed, daemon);
		on_map_changed(daemon);
	}
	if (r != 0) {
		node_daemon_stop(daemon, NULL, NULL);
		return r;
	}
	*ret = daemon;
	return 0;
}

void node_daemon_restart_session(struct node_daemon *daemon)
{
	p2p_engine_restart_session(daemon->engine);
}

static void on_part_stopped(void *owner)
{
	struct node_daemon *daemon = owner;

	if (--daemon->n_open > 0)
		return;
	if (daemon->stopped)
		daemon->stopped(daemon->stopped_owner);
	free(daemon);
}

void node_daemon_stop(struct node_daemon *daemon, void (*stopped)(void *owner), void *owner)
{
	struct local_api *api = daemon->api;
	struct p2p_engine *engine = daemon->engine;
	struct http_server *metrics = daemon->metrics;
	struct diglett_thread *diglett = daemon->diglett;
	struct webgw_agent_thread *webgw_agent = daemon->webgw_agent;

	daemon->stopped = stopped;
	daemon->stopped_owner = owner;
	daemon->api = NULL;
	daemon->diglett = NULL; /* it frees itself */
	daemon->webgw_agent = NULL; /* the same */
	daemon->n_open = 1 + (api != NULL) + (engine != NULL) + (metrics != NULL) + (diglett != NULL) + (webgw_agent != NULL);
	if (webgw_agent)
		webgw_agent_thread_stop(webgw_agent, on_part_stopped, daemon);
	if (diglett)
		diglett_thread_stop(diglett, on_part_stopped, daemon);
	if (metrics)
		http_server_stop(metrics, on_part_stopped, daemon);
	if (api)
		local_api_close(api, on_part_stopped, daemon);
	if (engine && service_is_restarting())
		engine_tell_listening(engine); /* who has copies now is another than before */
	if (engine)
		p2p_engine_stop(engine, on_part_stopped, daemon);
	on_part_stopped(daemon);
}
