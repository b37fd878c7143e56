#include "relay/diglett/diglett_agent.h"

#include "common/file.h"
#include "common/log.h"
#include "relay/diglett/diglett_keys.h"
#include "relay/diglett/tunnel.h"

#include <errno.h>
#include <netdb.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FIRST_WAIT_MS 1000
#define MAX_WAIT_MS   60000
#define STEADY_MS     60000 /* let in for so long: not the server's mood */
#define MAX_STREAMS   512

struct diglett_agent {
	uv_loop_t *loop;
	struct diglett_agent_options options;
	char *host, *token_file, *extra;
	struct noise_curve curve;
	struct noise_secret own; /* drawn at start */
	struct tunnel *tunnel;
	uv_timer_t timer;
	uv_getaddrinfo_t look_up;
	bool is_looking_up, is_stopping;
	struct diglett_agent_counters counters;
	uint64_t let_in_ms;
	int64_t let_in_s;		       /* of the wall clock */
	struct host_name names[DIGLETT_MAX_PORTS]; /* as they are reached */
	uint32_t wait_ms, n_open;
	char told[256]; /* what was logged last: not again and again */
	void (*stopped)(void *owner);
	void *owner;
};

static void on_retry(uv_timer_t *timer);

static void release(struct diglett_agent *agent)
{
	if (--agent->n_open > 0)
		return;
	void (*stopped)(void *owner) = agent->stopped;
	void *const owner = agent->owner;

	noise_secret_wipe(&agent->own);
	noise_curve_deinit(&agent->curve);
	free(agent->host);
	free(agent->token_file);
	free(agent->extra);
	free(agent);
	if (stopped)
		stopped(owner);
}

/* It tries again, after a while in which others of the same start do not all come at once. */
static void plan(struct diglett_agent *agent, const char *why)
{
	if (agent->is_stopping)
		return;
	if (strcmp(agent->told, why) != 0)
		log_warning("diglett", "no tunnel to %s:%u: %s; trying again", agent->host, agent->options.port, why);
	snprintf(agent->told, sizeof(agent->told), "%s", why);
	uv_timer_start(&agent->timer, on_retry, agent->wait_ms / 2 + randombytes_uniform(agent->wait_ms), 0);
	agent->wait_ms = agent->wait_ms < MAX_WAIT_MS / 2 ? agent->wait_ms * 2 : MAX_WAIT_MS;
}

/* the tunnel */

static void on_answered(void *owner, const struct diglett_answer *answer)
{
	struct diglett_agent *agent = owner;

	if (!answer->is_accepted)
		return;
	agent->counters.is_let_in = true;
	agent->counters.let_in++;
	agent->let_in_ms = uv_now(agent->loop);
	agent->let_in_s = (int64_t)time(NULL);
	for (uint8_t i = 0; i < answer->n_ports && i < agent->options.n_ports; i++)
		agent->names[i] = answer->names[i];
	agent->told[0] = '\0';
	for (uint8_t i = 0; i < answer->n_ports && i < agent->options.n_ports; i++)
		log_info("diglett", "%s leads to %s, by %s:%u", answer->names[i].text,
			 endpoint_text(&agent->options.targets[i]).s, agent->host, agent->options.port);
}

static bool on_find_target(void *owner, uint16_t port, struct endpoint *ret)
{
	const struct diglett_agent *agent = owner;

	if (port >= agent->options.n_ports)
		return false;
	*ret = agent->options.targets[port];
	return true;
}

static void on_tunnel_closed(void *owner)
{
	release(owner);
}

static void on_ended(void *owner, const struct error *why)
{
	struct diglett_agent *agent = owner;
	const bool was_steady = agent->counters.is_let_in && uv_now(agent->loop) - agent->let_in_ms >= STEADY_MS;

	tunnel_close(agent->tunnel, MUX_CLOSED, on_tunnel_closed);
	struct tunnel_counters carried = tunnel_counters(agent->tunnel);
	carried.visitors_now = 0;
	tunnel_counters_add(&agent->counters.streams, &carried);
	agent->tunnel = NULL;
	if (agent->counters.is_let_in && why->code == MUX_REPLACED)
		agent->wait_ms = MAX_WAIT_MS; /* two of us would drive each other out for ever */
	else if (was_steady)
		agent->wait_ms = FIRST_WAIT_MS;
	agent->counters.is_let_in = false;
	plan(agent, why->message);
}

static int read_token(const struct diglett_agent *agent, char ret[DIGLETT_MAX_TOKEN + 1], struct error *reterr)
{
	char *text = NULL;
	size_t len = 0;

	int r = file_read_secret(agent->token_file, 4096, &text, &len, reterr);
	if (r < 0)
		return r;
	const size_t n = strcspn(text, "\r\n");
	if (n == 0 || n > DIGLETT_MAX_TOKEN || memchr(text, ' ', n))
		r = error_set(reterr, -EINVAL, "the first line of %s is no token: 1 to %d characters without spaces",
			      agent->token_file, DIGLETT_MAX_TOKEN);
	else
		snprintf(ret, DIGLETT_MAX_TOKEN + 1, "%.*s", (int)n, text);
	sodium_memzero(text, len);
	free(text);
	return r;
}

static int on_show_badge(void *owner, const struct node_badge_binding *binding, struct node_badge *ret,
			 struct error *reterr)
{
	const struct diglett_agent *agent = owner;

	return agent->options.show_badge(agent->options.owner, binding, ret, reterr);
}

static void connect_to(struct diglett_agent *agent, const struct endpoint *server)
{
	const bool has_token = agent->token_file[0] != '\0';
	const struct tunnel_ports ports = { .owner = agent,
					    .show_badge = has_token ? NULL : on_show_badge,
					    .answered = on_answered,
					    .find_target = on_find_target,
					    .ended = on_ended,
					    .half_closed_ms = agent->options.half_closed_ms };
	struct diglett_request request = { .max_streams = MAX_STREAMS, .n_ports = agent->options.n_ports };
	struct error error;

	memcpy(request.names, agent->options.names, sizeof(request.names));
	snprintf(request.extra, sizeof(request.extra), "%s", agent->extra);
	int r = has_token ? read_token(agent, request.token, &error) : 0;
	if (r == 0) {
		r = tunnel_connect(agent->loop, &agent->curve, &agent->own, &agent->options.server_key, server, &request,
				   &ports, &agent->tunnel);
		error_set(&error, r, "%s", strerror(-r));
	}
	diglett_request_wipe(&request);
	if (r == 0)
		agent->n_open++;
	else
		plan(agent, error.message);
}

/* its server's address */

static void on_looked_up(uv_getaddrinfo_t *look_up, int status, struct addrinfo *found)
{
	struct diglett_agent *agent = look_up->data;

	agent->is_looking_up = false;
	if (status == 0 && !agent->is_stopping) {
		struct endpoint server = endpoint_from_sockaddr(found->ai_addr);
		server.port = agent->options.port;
		connect_to(agent, &server);
	} else {
		plan(agent, uv_strerror(status));
	}
	uv_freeaddrinfo(found);
	release(agent);
}

static void on_retry(uv_timer_t *timer)
{
	struct diglett_agent *agent = timer->data;
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct endpoint server;

	if (endpoint_parse_ip(agent->host, agent->options.port, &server) == 0) {
		connect_to(agent, &server);
		return;
	}
	agent->look_up.data = agent;
	const int r = uv_getaddrinfo(agent->loop, &agent->look_up, on_looked_up, agent->host, NULL, &hints);
	if (r < 0) {
		plan(agent, uv_strerror(r));
		return;
	}
	agent->is_looking_up = true;
	agent->n_open++;
}

int diglett_agent_start(uv_loop_t *loop, const struct diglett_agent_options *options, struct diglett_agent **ret,
			struct error *reterr)
{
	struct diglett_agent *agent = calloc(1, sizeof(*agent));

	if (!agent || diglett_curve_init(&agent->curve) < 0)
		abort();
	agent->loop = loop;
	agent->options = *options;
	agent->host = strdup(options->host);
	agent->token_file = strdup(options->token_file);
	agent->extra = strdup(options->extra);
	memcpy(agent->names, options->names, sizeof(agent->names));
	agent->wait_ms = FIRST_WAIT_MS;
	agent->n_open = 1;
	diglett_key_draw(&agent->curve, &agent->own);
	uv_timer_init(loop, &agent->timer);
	agent->timer.data = agent;
	if (!agent->host || !agent->token_file || !agent->extra)
		abort();
	if (!noise_public_is_valid(&agent->curve, &options->server_key)) {
		diglett_agent_stop(agent, NULL, NULL);
		return error_set(reterr, -EINVAL, "the server's key is none; it is at http://SERVER/info");
	}
	uv_timer_start(&agent->timer, on_retry, 0, 0);
	*ret = agent;
	return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
	release(handle->data);
}

void diglett_agent_stop(struct diglett_agent *agent, void (*stopped)(void *owner), void *owner)
{
	agent->is_stopping = true;
	agent->stopped = stopped;
	agent->owner = owner;
	if (agent->is_looking_up)
		(void)uv_cancel((uv_req_t *)&agent->look_up);
	if (agent->tunnel)
		tunnel_close(agent->tunnel, MUX_CLOSED, on_tunnel_closed);
	uv_close((uv_handle_t *)&agent->timer, on_timer_closed);
}

struct diglett_agent_status diglett_agent_status(const struct diglett_agent *agent)
{
	const bool waits = uv_is_active((const uv_handle_t *)&agent->timer);

	return (struct diglett_agent_status){ .host = agent->host,
					      .port = agent->options.port,
					      .is_let_in = agent->counters.is_let_in,
					      .since_s = agent->let_in_s,
					      .why = agent->told,
					      .again_in_ms = waits ? (uint32_t)uv_timer_get_due_in(&agent->timer) : 0,
					      .n_ports = agent->options.n_ports,
					      .names = agent->names,
					      .targets = agent->options.targets,
					      .streams = diglett_agent_counters(agent).streams };
}

struct diglett_agent_counters diglett_agent_counters(const struct diglett_agent *agent)
{
	struct diglett_agent_counters counters = agent->counters;

	if (agent->tunnel) {
		const struct tunnel_counters carried = tunnel_counters(agent->tunnel);
		tunnel_counters_add(&counters.streams, &carried);
	}
	return counters;
}
