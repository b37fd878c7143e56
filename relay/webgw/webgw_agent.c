#include "relay/webgw/webgw_agent.h"

#include "common/file.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/tls.h"
#include "common/websocket.h"
#include "relay/frontdoor/link.h"
#include "relay/frontdoor/proxy_header_wire.h"
#include "relay/webgw/agent_wire.h"
#include "relay/webgw/half_closed.h"
#include "relay/webgw/raw_pairs.h"
#include "relay/webgw/target_probe.h"
#include "relay/webgw/tls_bridge.h"
#include "relay/webgw/warm_demand.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MODULE	       "webgw-agent"
#define FIRST_WAIT_MS  1000
#define MAX_WAIT_MS    60000
#define STEADY_MS      60000
#define DIAL_MS	       5000 /* TCP and TLS: longer no visitor waits */
#define TICK_MS	       1000
#define ALIVE_MS       15000
#define ASK_AGAIN_MS   10000 /* after warm ones were refused, or did not come about */
#define ASK_MORE_MS    1000  /* after there was room for some of them */
#define REGISTER_MS    10000 /* again, a host that was refused; twice as long each time */
#define MAX_REGISTER_MS 60000
#define MAX_GUESS_MS   600000 /* the same with a secret that may be wrong: the server ends a connection after WEBGW_MAX_WRONG */
#define RENEW_MS       60000  /* a subscription, of whose end nobody is told */
#define QUIET_MS       600000 /* nobody came: one warm one is enough */
#define MAX_VISITS     1024
#define HALF_CLOSED_MS 120000 /* as at the front door */
#define MAX_SEEN       512
#define SEEN_LEN       16
#define FIRST_PREPARE  1000 /* request ids: below it those of hosts' registration */
#define FIRST_UNREGISTER 2000
#define PROBE_MS       2000 /* between two tries of a host's targets */
#define MAX_MESSAGE    4096
#define MAX_HEADER     384 /* of the PROXY protocol: addresses, host and scheme */
#define UNKNOWN_VISITOR (-ENODATA) /* and its target has to be told who it is */
#define MAX_QUEUE      (64 * 1024)

enum visit_state { DIALLING, DIALLING_WARM, WARM, CARRYING, PARTING };

struct agent_host {
	struct webgw_agent *agent;
	struct host_pattern name;
	char shown[sizeof("*.") + HOST_NAME_MAX_LEN];
	struct webgw_agent_targets targets;
	int64_t subscription; /* 0: none */
	int64_t given_up;     /* the last one, of which visitors may still be told */
	uint32_t n_warm;      /* also those that are dialled for it */
	struct raw_pairs_counter raw; /* visitors between sockets alone */
	uint64_t unanswered;  /* of them, when it was looked at last */
	struct target_probe *probe; /* NULL: none is under way */
	bool probes_https;
	uint64_t probe_ms; /* since when; and when it is over, before which there is no other */
	bool is_down;	   /* none of its targets can be had: others may serve it */
	uint32_t n_asked;     /* secrets, in the request under way */
	int64_t asked_of;     /* their subscription */
	uint64_t ask_ms, visited_ms, register_ms;
	struct warm_demand demand;
	uint32_t wait_ms; /* before it is registered again; 0: it was not refused */
	bool is_refused;  /* was told */
	bool is_untold;   /* and why: of its visitors it would not be told who they are */
	char refusal[WEBGW_AGENT_WHY_LEN + 1];
	struct {
		struct log_limit broken, unknown, no_target[2], no_socket, no_probe, answers;
	} limits; /* one each: visitors, and the node, can make many of a line, and hide no other */
	uint64_t told_second[2]; /* when lines of these were last let through: warnings, others */
};

struct visit {
	struct tls_bridge bridge;
	struct webgw_agent *agent;
	struct agent_host *host;
	struct link among;
	enum visit_state state;
	struct half_closed half_closed;
	uint8_t secret[WEBGW_EPHEMERAL_LEN];
	uint64_t alive_ms; /* when it was said last; of one that is PARTING: since when it is */
	bool is_tls;	   /* its visitor speaks TLS itself; of one that is warm known when it is claimed */
	bool is_unknown;   /* who its visitor is was not told, and its target has to be: it has none */
	uint8_t *first;	   /* for the target before what comes: a PROXY header; PARTING: what its visitor sent first; owned, NULL: nothing */
	size_t n_first;
	bool is_closing;
};

struct webgw_agent {
	uv_loop_t *loop;
	struct webgw_agent_options options;
	char *server, *secret_file;
	struct websocket_host *websockets;
	struct tls_host *tls_host;
	struct raw_pairs *raw;
	struct websocket *ws; /* NULL: waits */
	SSL_CTX *context;     /* of what is dialled: a secret says whose it is, no certificate, which may have ended meanwhile */
	uv_timer_t timer, tick;
	struct agent_host hosts[WEBGW_AGENT_MAX_HOSTS];
	struct link visits;
	uint32_t n_visits;
	struct webgw_agent_counters counters;
	char hex_secret[WEBGW_HEX_SECRET_MAX + 1];
	uint8_t seen[MAX_SEEN][SEEN_LEN]; /* a ring of beginnings of secrets */
	uint32_t next_seen;
	uint64_t opened_ms;
	uint32_t wait_ms, n_open;
	bool is_open, is_stopping;
	struct log_limit telling[2]; /* hosts, as tell_of() has it */
	bool tells_nobody; /* who visits: the node at this WebSocket's other end, and it will not learn it */
	char told[256];
	void (*stopped)(void *owner);
	void *owner;
};

static uint64_t now_of(const struct webgw_agent *agent)
{
	return uv_now(agent->loop);
}

/* ---- what visitors can make be logged ---- */

/*
 * Of so many hosts in one second as a limit lets lines through: all of them together could exceed what a machine's journal
 * takes from one program, and it would drop what is told but once. Warnings are counted apart.
 */
static bool may_tell_of(struct agent_host *host, struct log_limit *limit, enum log_level level)
{
	const uint64_t second = now_of(host->agent) / 1000;
	const bool is_less = level > LOG_LEVEL_WARNING;
	uint32_t suppressed;

	if (level > log_get_level()) /* it takes no other's place */
		return false;
	if (host->told_second[is_less] == second)
		return true;
	if (!log_limit_take(&host->agent->telling[is_less], second, &suppressed)) {
		limit->suppressed += limit->suppressed < UINT32_MAX;
		return false;
	}
	host->told_second[is_less] = second;
	return true;
}

#define tell_of(host, limit, level, ...)                                                                               \
	do {                                                                                                           \
		if (may_tell_of(host, &(host)->limits.limit, level))                                                   \
			log_limited(&(host)->limits.limit, level, MODULE, __VA_ARGS__);                                \
	} while (0)

/* ---- visits' ends ---- */

static void release_visit(struct webgw_agent *agent);

static bool suspect(struct agent_host *host);

static bool is_warm(const struct visit *visit)
{
	return visit->state == DIALLING_WARM || visit->state == WARM;
}

static void on_visit_closed(void *owner)
{
	struct visit *visit = owner;
	struct webgw_agent *agent = visit->agent;

	free(visit);
	agent->n_visits--;
	release_visit(agent);
}

static void close_visit(struct visit *visit)
{
	if (visit->is_closing)
		return;
	visit->is_closing = true;
	visit->host->n_warm -= is_warm(visit);
	visit->agent->counters.carried_now -= visit->state == CARRYING;
	link_remove(&visit->among);
	sodium_memzero(visit->secret, sizeof(visit->secret));
	free(visit->first);
	visit->first = NULL;
	tls_bridge_close(&visit->bridge, on_visit_closed);
}

static void on_over(void *owner, const struct error *why)
{
	struct visit *visit = owner;
	struct webgw_agent *agent = visit->agent;

	if (is_warm(visit)) { /* not at once again: whatever ended it may still be so; maybe its subscription is gone */
		visit->host->ask_ms = now_of(agent) + ASK_AGAIN_MS;
		if (visit->host->subscription != 0)
			visit->host->register_ms = 0;
	} else if (why->code < 0) {
		if (visit->state == CARRYING && visit->bridge.bytes_out == 0)
			(void)suspect(visit->host);
		tell_of(visit->host, broken, LOG_LEVEL_INFO, "a visitor of %s: %s", visit->host->shown, why->message);
	}
	close_visit(visit);
}

/* ---- a visitor ---- */

/* A visitor may be told of twice: by a warm connection, and, if that seems dead to the node, by the WebSocket. */
static bool is_seen(struct webgw_agent *agent, const uint8_t secret[WEBGW_EPHEMERAL_LEN])
{
	for (uint32_t i = 0; i < MAX_SEEN; i++) {
		if (sodium_memcmp(agent->seen[i], secret, SEEN_LEN) == 0) {
			agent->counters.told_twice++;
			return true;
		}
	}
	memcpy(agent->seen[agent->next_seen++ % MAX_SEEN], secret, SEEN_LEN);
	return false;
}

/* It was not served: told of by the other way, it is another try, which fails in the visitor's sight. */
static void forget_seen(struct webgw_agent *agent, const uint8_t secret[WEBGW_EPHEMERAL_LEN])
{
	for (uint32_t i = 0; i < MAX_SEEN; i++)
		if (sodium_memcmp(agent->seen[i], secret, SEEN_LEN) == 0)
			sodium_memzero(agent->seen[i], SEEN_LEN);
}

static const struct endpoint *target_of(const struct visit *visit)
{
	return visit->is_tls ? &visit->host->targets.https : &visit->host->targets.http;
}

static bool wants_header(const struct visit *visit)
{
	const struct webgw_agent_targets *targets = &visit->host->targets;

	return target_of(visit)->port != 0 && (visit->is_tls ? targets->https_header : targets->http_header) != DOOR_NO_HEADER;
}

static size_t write_header(const struct visit *visit, const struct webgw_visitor *visitor, const struct host_name *host,
			   uint8_t buf[MAX_HEADER])
{
	const struct webgw_agent_targets *targets = &visit->host->targets;
	const struct proxy_header header = { .has_addresses = true,
					     .source = visitor->from,
					     .destination = visitor->to,
					     .authority = { .at = host->len > 0 ? (const uint8_t *)host->text : NULL, .len = host->len },
					     .scheme = visit->is_tls ? PROXY_HTTPS : PROXY_HTTP };

	return (visit->is_tls ? targets->https_header : targets->http_header) == DOOR_HEADER_V1
		       ? proxy_v1_encode(&header, buf, MAX_HEADER)
		       : proxy_v2_encode(&header, buf, MAX_HEADER);
}

/* What its target gets before all that comes: who the visitor is, if that is wanted, and so many bytes of his. */
static void set_first(struct visit *visit, const struct webgw_visitor *visitor, const struct host_name *host, const uint8_t *bytes,
		      size_t n)
{
	uint8_t header[MAX_HEADER];
	size_t n_header = 0;

	if (wants_header(visit)) {
		n_header = webgw_visitor_is_whole(visitor) ? write_header(visit, visitor, host, header) : 0;
		visit->is_unknown = n_header == 0; /* without one the target would take him for somebody of this machine */
	}
	visit->n_first = n_header + n;
	if (visit->n_first == 0)
		return;
	visit->first = malloc(visit->n_first);
	if (!visit->first)
		abort();
	memcpy(visit->first, header, n_header);
	if (n > 0)
		memcpy(visit->first + n_header, bytes, n);
}

/* Not waited for: what is read and written of it waits in the socket's stead. -errno: none. */
static int begin_to_connect(const struct endpoint *target)
{
	struct sockaddr_storage address;
	const socklen_t len = endpoint_to_sockaddr(target, &address);
	const int one = 1;

	if (target->port == 0)
		return -EADDRNOTAVAIL;
	const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (const struct sockaddr *)&address, len) == 0 || errno == EINPROGRESS)
		return fd;
	const int r = -errno;
	close(fd);
	return r;
}

/* This process's want, or the machine's, which says nothing of the target. */
static bool is_for_want(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM || error == -EADDRNOTAVAIL;
}

/* It would take the visitor for one of this machine's, whom it may let do more than others. */
static int connect_target(const struct visit *visit)
{
	return visit->is_unknown ? UNKNOWN_VISITOR : begin_to_connect(target_of(visit));
}

static void tell_no_target(struct visit *visit, int error)
{
	if (error == UNKNOWN_VISITOR) {
		tell_of(visit->host, unknown, LOG_LEVEL_WARNING,
			"%s: a visitor is refused: who it is was not told, and its target has proxy=", visit->host->shown);
		return;
	}
	if (target_of(visit)->port == 0) /* nothing is exposed to who comes so, which is nobody's fault here */
		return;
	if (!is_for_want(error))
		(void)suspect(visit->host);
	tell_of(visit->host, no_target[visit->is_tls], LOG_LEVEL_WARNING, "%s: cannot connect to %s: %s", visit->host->shown,
		endpoint_text(target_of(visit)).s, strerror(-error));
}

static void tell_no_socket(struct visit *visit, int error)
{
	tell_of(visit->host, no_socket, LOG_LEVEL_WARNING, "%s: a visitor is lost: its socket cannot go on without TLS: %s",
		visit->host->shown, strerror(-error));
}

static void note_visited(struct agent_host *host, uint64_t now_ms)
{
	host->visited_ms = now_ms;
	warm_demand_note(&host->demand, now_ms);
}

static void carry(struct visit *visit)
{
	struct webgw_agent *agent = visit->agent;
	const int fd = connect_target(visit);

	visit->host->n_warm -= is_warm(visit);
	visit->state = CARRYING;
	agent->counters.carried_now++;
	if (fd < 0 || tls_bridge_join(&visit->bridge, fd) < 0) {
		tell_no_target(visit, fd < 0 ? fd : -EIO);
		if (target_of(visit)->port == 0 || visit->is_unknown) /* it is taken to be reset: told by the other way, it would cost another connection */
			tls_stream_flush(&visit->bridge.stream);
		close_visit(visit);
		return;
	}
	tls_bridge_put_before(&visit->bridge, visit->first, visit->n_first);
	free(visit->first);
	visit->first = NULL;
	visit->n_first = 0;
	tls_bridge_pass(&visit->bridge);
}

/* What came first, and what came behind TLS's end: for the target, in one piece; of malloc(), or NULL. */
static uint8_t *join_pieces(struct visit *visit, uint8_t *came_take, size_t n_came)
{
	if (n_came == 0 || visit->n_first == 0) {
		uint8_t *only = n_came == 0 ? visit->first : came_take;
		visit->first = n_came == 0 ? NULL : visit->first;
		return only;
	}
	uint8_t *both = realloc(visit->first, visit->n_first + n_came);
	if (!both)
		abort();
	memcpy(both + visit->n_first, came_take, n_came);
	free(came_take);
	visit->first = NULL;
	return both;
}

/* TLS has ended, both ways: what the visitor and the target say goes from socket to socket. */
static void on_parted(void *owner)
{
	struct visit *visit = owner;
	struct webgw_agent *agent = visit->agent;
	uint8_t *came = NULL;
	size_t n_came = 0;

	if (visit->is_closing)
		return;
	const int target = connect_target(visit);
	const int fd = target < 0 ? target : tls_bridge_release(&visit->bridge, &came, &n_came);
	if (fd < 0) {
		if (target < 0)
			tell_no_target(visit, fd);
		else
			tell_no_socket(visit, fd);
		if (target >= 0)
			close(target);
	} else {
		const size_t n = visit->n_first + n_came;
		if (raw_pairs_begin(agent->raw, fd, target, join_pieces(visit, came, n_came), n, &visit->host->raw) == 0)
			agent->counters.raw++;
	}
	close_visit(visit);
}

/* All that is to be said within TLS is said. */
static void part(struct visit *visit)
{
	visit->host->n_warm -= is_warm(visit);
	visit->state = PARTING;
	visit->alive_ms = now_of(visit->agent);
	tls_bridge_part(&visit->bridge);
}

static void top_up(struct webgw_agent *agent, struct agent_host *host);

static bool can_go_raw(const struct visit *visit)
{
	return tls_stream_alpn_is(&visit->bridge.stream, WEBGW_ALPN);
}

/* The node claims it. */
static void on_came(void *owner)
{
	struct visit *visit = owner;
	const uint8_t taken = WEBGW_TAKEN;
	struct agent_host *host = visit->host;
	struct webgw_agent *agent = visit->agent;
	struct webgw_start start;
	size_t n;
	const uint8_t *bytes = tls_bridge_came(&visit->bridge, &n);

	if (visit->is_closing || visit->state == CARRYING)
		return;
	const bool may_start = visit->state == DIALLING_WARM || visit->state == WARM;
	const int len = may_start ? webgw_start_read(bytes, n, &start) : -EINVAL;
	if (len == 0 || (len > 0 && n < (size_t)len + start.n_first))
		return;
	if (len < 0 || (start.is_raw && !can_go_raw(visit)) || is_seen(agent, start.secret)) {
		close_visit(visit);
		return;
	}
	visit->is_tls = start.port == 443;
	set_first(visit, &start.visitor, &start.host, bytes + len, start.n_first);
	tls_bridge_skip(&visit->bridge, (size_t)len + start.n_first);
	tls_bridge_say(&visit->bridge, &taken, 1);
	agent->counters.warm_used++;
	if (target_of(visit)->port != 0)
		note_visited(host, now_of(agent));
	if (start.is_raw)
		part(visit);
	else
		carry(visit);
	if (visit->is_closing) /* before anything of it went out */
		forget_seen(agent, start.secret);
	top_up(agent, host);
	sodium_memzero(&start, sizeof(start));
}

static void on_dialled(void *owner)
{
	struct visit *visit = owner;

	if (visit->is_closing)
		return;
	const bool goes_raw = visit->is_tls && can_go_raw(visit);
	const uint8_t kind = goes_raw ? WEBGW_DIAL_RAW : WEBGW_DIAL_WRAPPED;
	if (can_go_raw(visit))
		tls_bridge_say(&visit->bridge, &kind, 1);
	tls_bridge_say(&visit->bridge, visit->secret, sizeof(visit->secret));
	sodium_memzero(visit->secret, sizeof(visit->secret));
	if (visit->state == DIALLING) {
		visit->agent->counters.dialled++;
		if (goes_raw) {
			part(visit);
			return;
		}
		tls_stream_flush(&visit->bridge.stream); /* with its secret out, the visitor sees it if its target cannot be had */
		carry(visit);
		return;
	}
	visit->state = WARM;
	visit->alive_ms = now_of(visit->agent);
}

/* As the WebSocket has it: for who is between, and lets through what has a name. NULL: it is an address. */
static const char *server_name(const struct webgw_agent *agent)
{
	struct endpoint address;

	return endpoint_parse_ip(agent->server, 0, &address) == 0 ? NULL : agent->server;
}

static bool has_room(const struct webgw_agent *agent)
{
	return agent->n_visits + raw_pairs_count(agent->raw) < MAX_VISITS;
}

/* told: of whom the agent was told, and what for; NULL: it is to be warm, and nobody is there yet. */
static void dial(struct webgw_agent *agent, struct agent_host *host, uint16_t port, const uint8_t secret[WEBGW_EPHEMERAL_LEN],
		 const struct webgw_word *told)
{
	struct tls_bridge_ports ports = { .ready = on_dialled, .came = on_came, .parted = on_parted, .over = on_over };
	struct endpoint remote = websocket_remote(agent->ws);

	if (!has_room(agent)) {
		agent->counters.too_many++;
		return;
	}
	struct visit *visit = calloc(1, sizeof(*visit));
	if (!visit)
		abort();
	visit->agent = agent;
	visit->host = host;
	visit->state = told ? DIALLING : DIALLING_WARM;
	visit->is_tls = told && told->port == 443;
	if (told)
		set_first(visit, &told->visitor, &told->host, NULL, 0);
	memcpy(visit->secret, secret, sizeof(visit->secret));
	ports.owner = visit;
	remote.port = port;
	if (tls_bridge_open_client(&visit->bridge, agent->tls_host, agent->context, &remote, server_name(agent), DIAL_MS,
				   &ports) < 0) {
		free(visit->first);
		free(visit);
		return;
	}
	host->n_warm += is_warm(visit);
	agent->n_visits++;
	agent->n_open++;
	link_put_last(&agent->visits, &visit->among);
}

/* ---- what is kept warm ---- */

static uint32_t wanted_warm(const struct webgw_agent *agent, const struct agent_host *host)
{
	const bool is_quiet = now_of(agent) - host->visited_ms >= QUIET_MS;

	if (agent->options.n_warm == 0 || is_quiet)
		return agent->options.n_warm > 0;
	return warm_demand_wanted(&host->demand, agent->options.n_warm, WEBGW_AGENT_MAX_WARM, now_of(agent));
}

static void send_and_free(struct webgw_agent *agent, char *text)
{
	if (websocket_send(agent->ws, text, strlen(text)) < 0)
		websocket_abort(agent->ws, "it does not read what it is asked");
	sodium_memzero(text, strlen(text));
	free(text);
}

static void top_up(struct webgw_agent *agent, struct agent_host *host)
{
	const uint32_t wanted = wanted_warm(agent, host);

	if (!agent->is_open || !has_room(agent) || host->subscription == 0 || host->n_asked > 0 || host->n_warm >= wanted ||
	    now_of(agent) < host->ask_ms)
		return;
	const uint32_t missing = wanted - host->n_warm;
	host->asked_of = host->subscription;
	host->n_asked = missing < WEBGW_PREPARE_MAX ? missing : WEBGW_PREPARE_MAX;
	send_and_free(agent, webgw_print_prepare(FIRST_PREPARE + (host - agent->hosts), host->subscription, host->n_asked));
}

static void on_secrets(struct webgw_agent *agent, struct agent_host *host, const struct webgw_word *word)
{
	const uint32_t n = word->n < host->n_asked ? word->n : host->n_asked;
	const uint32_t n_before = host->n_warm;

	if (n < host->n_asked)
		host->ask_ms = now_of(agent) + (n > 0 ? ASK_MORE_MS : ASK_AGAIN_MS);
	host->n_asked = 0;
	for (uint32_t i = 0; i < n; i++)
		dial(agent, host, word->listening_port, word->secrets[i], NULL);
	if (host->n_warm < n_before + n) /* for want of room or descriptors: visitors would wait for what does not come */
		host->ask_ms = now_of(agent) + ASK_AGAIN_MS;
	top_up(agent, host);
}

static void tend(struct visit *visit)
{
	static const uint8_t alive = WEBGW_ALIVE;
	const uint64_t now_ms = now_of(visit->agent);

	if (visit->state == PARTING && now_ms - visit->alive_ms >= DIAL_MS) {
		close_visit(visit);
		return;
	}
	if (visit->state == CARRYING &&
	    half_closed_is_over(&visit->half_closed, tls_bridge_is_half_closed(&visit->bridge),
				tls_bridge_moved(&visit->bridge), now_ms, HALF_CLOSED_MS)) {
		visit->agent->counters.half_closed++;
		close_visit(visit);
		return;
	}
	if (visit->state != WARM)
		return;
	if (visit->host->n_warm > wanted_warm(visit->agent, visit->host)) {
		close_visit(visit);
		return;
	}
	if (now_ms - visit->alive_ms < ALIVE_MS)
		return;
	visit->alive_ms = now_ms;
	tls_bridge_say(&visit->bridge, &alive, 1);
}

/* ---- are targets there? ---- */

static void close_warm(struct webgw_agent *agent, const struct agent_host *host);
static void on_retry(uv_timer_t *timer);
static void release(struct webgw_agent *agent);

static void unsubscribe(struct agent_host *host, int64_t subscription)
{
	struct webgw_agent *agent = host->agent;

	host->subscription = 0;
	host->given_up = subscription;
	host->n_asked = 0;
	close_warm(agent, host);
	if (agent->is_open && subscription != 0)
		send_and_free(agent, webgw_print_unregister(FIRST_UNREGISTER + (host - agent->hosts), subscription));
}

static void note_down(struct agent_host *host, int error)
{
	char targets[WEBGW_AGENT_TARGETS_LEN + 1];

	if (host->is_down)
		return;
	host->is_down = true;
	webgw_agent_targets_text(&host->targets, targets);
	log_warning(MODULE, "%s: nobody answers at %s: %s; its visitors are left to other agents until somebody does",
		    host->shown, targets, strerror(-error));
	unsubscribe(host, host->subscription);
}

/* How long there is nothing to ask for: who is connected meanwhile is not let stay. */
static uint64_t idle_ms(const struct webgw_agent *agent)
{
	const uint64_t now_ms = now_of(agent);
	uint64_t first_ms = UINT64_MAX;

	for (uint8_t i = 0; i < agent->options.n_hosts; i++)
		if (!agent->hosts[i].is_down && agent->hosts[i].register_ms < first_ms)
			first_ms = agent->hosts[i].register_ms;
	return first_ms == UINT64_MAX || first_ms < now_ms ? 0 : first_ms - now_ms;
}

static void plan_in(struct webgw_agent *agent, uint64_t wait_ms)
{
	const uint64_t least_ms = idle_ms(agent);

	(void)uv_timer_start(&agent->timer, on_retry, wait_ms > least_ms ? wait_ms : least_ms, 0);
}

static void note_up(struct agent_host *host)
{
	if (!host->is_down)
		return;
	host->is_down = false;
	if (!host->is_untold) /* its node has learned nothing meanwhile */
		host->register_ms = 0;
	log_info(MODULE, "%s: somebody answers again%s", host->shown, host->is_untold ? "" : "; subscribing");
	if (!host->agent->ws) /* it waits, maybe for this */
		plan_in(host->agent, FIRST_WAIT_MS);
}

static void tell_no_probe(struct agent_host *host, int error)
{
	tell_of(host, no_probe, LOG_LEVEL_WARNING, "%s: whether somebody answers cannot be tried: %s", host->shown,
		strerror(-error));
}

static void begin_probe(struct agent_host *host, bool https);

static void on_probed(void *owner, int status)
{
	struct agent_host *host = owner;
	struct webgw_agent *agent = host->agent;
	const struct webgw_agent_targets *targets = &host->targets;
	const bool has_other = !host->probes_https && targets->https.port != 0 && !endpoint_equal(&targets->http, &targets->https);

	host->probe = NULL;
	host->probe_ms = now_of(agent) + PROBE_MS;
	if (!agent->is_stopping) {
		if (status == 0)
			note_up(host);
		else if (is_for_want(status)) /* neither up nor down is known */
			tell_no_probe(host, status);
		else if (has_other)
			begin_probe(host, true);
		else
			note_down(host, status);
	}
	release(agent);
}

static void begin_probe(struct agent_host *host, bool https)
{
	struct webgw_agent *agent = host->agent;

	host->probes_https = https;
	host->probe_ms = now_of(agent);
	agent->n_open++;
	host->probe = target_probe_begin(agent->loop, https ? &host->targets.https : &host->targets.http, on_probed, host);
}

/* Who subscribes to nothing is not let stay at the server. */
static bool has_a_host_up(const struct webgw_agent *agent)
{
	for (uint8_t i = 0; i < agent->options.n_hosts; i++)
		if (!agent->hosts[i].is_down)
			return true;
	return false;
}

/* A visitor was not answered: whether its target is there is asked at once, but not for each visitor. False: it is not asked now. */
static bool suspect(struct agent_host *host)
{
	if (host->probe || host->agent->is_stopping || now_of(host->agent) < host->probe_ms)
		return false;
	begin_probe(host, host->targets.http.port == 0);
	return true;
}

static void tend_probe(struct agent_host *host)
{
	if (host->probe && now_of(host->agent) - host->probe_ms >= DIAL_MS)
		target_probe_end(host->probe);
	const bool is_due = host->is_down || host->unanswered != host->raw.unanswered;
	if (is_due && suspect(host)) /* else it stays due: what is known may be from before */
		host->unanswered = host->raw.unanswered;
}

static void refuse_untold(struct agent_host *host);

/* To ask is to subscribe, and until that is given back visitors are led here, whom another agent would serve. */
static bool is_asked_in_vain(const struct agent_host *host)
{
	return host->agent->tells_nobody && webgw_agent_targets_want_visitors(&host->targets);
}

/* Also those that it has: the server says nothing when it takes one away, and gives the same one when it has not. */
static void register_hosts(struct webgw_agent *agent)
{
	const uint64_t now_ms = now_of(agent);

	for (uint8_t i = 0; i < agent->options.n_hosts && agent->is_open; i++) {
		struct agent_host *host = &agent->hosts[i];
		if (host->is_down || now_ms < host->register_ms)
			continue;
		if (is_asked_in_vain(host)) {
			if (!host->is_untold)
				refuse_untold(host);
			continue;
		}
		host->register_ms = now_ms + RENEW_MS;
		send_and_free(agent, webgw_print_register(i + 1, &host->name,
							  agent->secret_file[0] != '\0' ? agent->hex_secret : NULL,
							  webgw_agent_targets_want_visitors(&host->targets)));
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct webgw_agent *agent = container_of(timer, struct webgw_agent, tick);

	for (struct link *at = agent->visits.after, *next; at != &agent->visits; at = next) {
		next = at->after;
		tend(container_of(at, struct visit, among));
	}
	for (uint8_t i = 0; i < agent->options.n_hosts; i++)
		tend_probe(&agent->hosts[i]);
	if (!agent->is_open)
		return;
	register_hosts(agent);
	for (uint8_t i = 0; i < agent->options.n_hosts && agent->is_open; i++)
		top_up(agent, &agent->hosts[i]);
}

/* host NULL: of all. */
static void close_warm(struct webgw_agent *agent, const struct agent_host *host)
{
	for (struct link *at = agent->visits.after, *next; at != &agent->visits; at = next) {
		struct visit *visit = container_of(at, struct visit, among);
		next = at->after;
		if (is_warm(visit) && (!host || visit->host == host))
			close_visit(visit);
	}
}

/* ---- what is heard ---- */

/* Those with a secret the slower the more they are: all together stay below what the server counts as guesses. */
static uint32_t first_wait(const struct webgw_agent *agent)
{
	uint32_t n = 1;

	if (agent->secret_file[0] == '\0')
		return REGISTER_MS;
	for (uint8_t i = 0; i < agent->options.n_hosts; i++)
		n += agent->hosts[i].subscription == 0;
	return n * REGISTER_MS;
}

static void copy_printable(const char *text, char ret[WEBGW_AGENT_WHY_LEN + 1])
{
	size_t n = 0;

	for (; text[n] != '\0' && n < WEBGW_AGENT_WHY_LEN; n++)
		ret[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
	ret[n] = '\0';
}

/* Each reason is told once: of the next node it may be another. */
static void tell_refused(struct agent_host *host, const char *why)
{
	char refusal[WEBGW_AGENT_WHY_LEN + 1];

	copy_printable(why, refusal);
	if (host->is_refused && strcmp(refusal, host->refusal) == 0)
		return;
	host->is_refused = true;
	memcpy(host->refusal, refusal, sizeof(refusal));
	log_limited(&host->limits.answers, LOG_LEVEL_WARNING, MODULE, "%s is refused by %s:%u: %s; trying again", host->shown,
		    host->agent->server, host->agent->options.port, why);
}

static void refuse(struct agent_host *host, const char *why, uint32_t first_ms, uint32_t max_ms)
{
	const uint32_t wait_ms = host->wait_ms > 0 ? 2 * host->wait_ms : first_ms;

	tell_refused(host, why);
	host->subscription = 0;
	host->wait_ms = wait_ms < max_ms ? wait_ms : max_ms;
	host->register_ms = now_of(host->agent) + host->wait_ms;
}

static void refuse_by_server(struct agent_host *host, const char *why)
{
	struct webgw_agent *agent = host->agent;

	if (host->is_untold) /* its wait was for another reason */
		host->wait_ms = 0;
	host->is_untold = false;
	refuse(host, why, first_wait(agent), agent->secret_file[0] != '\0' ? MAX_GUESS_MS : MAX_REGISTER_MS);
}

/*
 * Its wait outlives the WebSocket: the next one's node may be the same, which is asked again in vain. Its secret was right,
 * if it has one: who asks is none that guesses.
 */
static void refuse_untold(struct agent_host *host)
{
	host->agent->tells_nobody = true;
	if (!host->is_untold)
		host->wait_ms = 0;
	host->is_untold = true;
	refuse(host, "it does not tell who visits, as proxy= needs: update that node, or leave proxy= out", REGISTER_MS,
	       MAX_REGISTER_MS);
}

static void forget_refusal(struct agent_host *host)
{
	host->wait_ms = 0;
	host->is_refused = host->is_untold = false;
	host->refusal[0] = '\0';
}

static void on_subscribed(struct webgw_agent *agent, struct agent_host *host, const struct webgw_word *word)
{
	const int64_t subscription = word->subscription;

	agent->wait_ms = FIRST_WAIT_MS;
	if (!word->tells_visitors && webgw_agent_targets_want_visitors(&host->targets)) {
		unsubscribe(host, subscription);
		refuse_untold(host);
		return;
	}
	forget_refusal(host);
	if (host->is_down) { /* since it was asked for */
		unsubscribe(host, subscription);
		return;
	}
	if (host->subscription == subscription) /* still there */
		return;
	host->subscription = subscription;
	host->visited_ms = now_of(agent);
	agent->told[0] = '\0';
	char targets[WEBGW_AGENT_TARGETS_LEN + 1];
	webgw_agent_targets_text(&host->targets, targets);
	log_limited(&host->limits.answers, LOG_LEVEL_INFO, MODULE, "%s leads to %s, by %s:%u", host->shown, targets, agent->server,
		    agent->options.port);
	top_up(agent, host);
}

static void on_none_prepared(struct webgw_agent *agent, struct agent_host *host, const struct webgw_word *word)
{
	host->n_asked = 0;
	host->ask_ms = now_of(agent) + ASK_AGAIN_MS;
	if (word->code != RPC_NOT_FOUND || host->subscription != host->asked_of || host->subscription == 0)
		return;
	log_info(MODULE, "%s: its subscription at %s:%u is gone; subscribing again", host->shown, agent->server,
		 agent->options.port);
	host->subscription = 0;
	host->register_ms = 0;
}

static void on_refused(struct webgw_agent *agent, const struct webgw_word *word)
{
	if (word->id >= FIRST_PREPARE && word->id < FIRST_PREPARE + agent->options.n_hosts)
		on_none_prepared(agent, &agent->hosts[word->id - FIRST_PREPARE], word);
	else if (word->id >= 1 && word->id <= agent->options.n_hosts)
		refuse_by_server(&agent->hosts[word->id - 1], word->text);
}

static bool is_told_of(const struct agent_host *host, const struct webgw_word *word)
{
	return word->subscription == host->subscription || word->subscription == host->given_up;
}

static void on_visit(struct webgw_agent *agent, const struct webgw_word *word)
{
	for (uint8_t i = 0; i < agent->options.n_hosts && agent->is_open; i++) {
		struct agent_host *host = &agent->hosts[i];
		if (!is_told_of(host, word) || is_seen(agent, word->secret))
			continue;
		if ((word->port == 443 ? &host->targets.https : &host->targets.http)->port != 0)
			note_visited(host, now_of(agent));
		dial(agent, host, word->listening_port, word->secret, word);
		top_up(agent, host); /* there was none for it */
	}
}

static void on_message(void *owner, struct websocket *ws, const char *text, size_t len)
{
	struct webgw_agent *agent = owner;
	struct webgw_word word;

	if (webgw_word_read(text, len, &word) < 0)
		websocket_abort(ws, "what it says is not understood");
	else if (word.kind == WEBGW_WORD_VISIT)
		on_visit(agent, &word);
	else if (word.kind == WEBGW_WORD_REFUSED)
		on_refused(agent, &word);
	else if (word.kind == WEBGW_WORD_SUBSCRIBED && word.id >= 1 && word.id <= agent->options.n_hosts)
		on_subscribed(agent, &agent->hosts[word.id - 1], &word);
	else if (word.kind == WEBGW_WORD_SECRETS && word.id >= FIRST_PREPARE && word.id < FIRST_PREPARE + agent->options.n_hosts)
		on_secrets(agent, &agent->hosts[word.id - FIRST_PREPARE], &word);
	sodium_memzero(&word, sizeof(word));
}

/* ---- the WebSocket ---- */

static void on_retry(uv_timer_t *timer);

static void plan(struct webgw_agent *agent, const char *why)
{
	if (agent->is_stopping)
		return;
	if (strcmp(agent->told, why) != 0)
		log_warning(MODULE, "not connected to %s:%u: %s; trying again", agent->server, agent->options.port, why);
	snprintf(agent->told, sizeof(agent->told), "%s", why);
	plan_in(agent, agent->wait_ms / 2 + randombytes_uniform(agent->wait_ms));
	agent->wait_ms = agent->wait_ms < MAX_WAIT_MS / 2 ? agent->wait_ms * 2 : MAX_WAIT_MS;
}

static void on_opened(void *owner, struct websocket *ws)
{
	struct webgw_agent *agent = owner;

	(void)ws;
	agent->is_open = true;
	agent->opened_ms = now_of(agent);
	register_hosts(agent);
}

/* Of what was asked there is no answer any more. */
static void forget_socket(struct agent_host *host)
{
	const uint64_t at_most_ms = now_of(host->agent) + host->wait_ms;

	host->subscription = host->given_up = 0;
	host->n_asked = 0;
	host->ask_ms = 0;
	if (!host->is_untold) {
		host->register_ms = 0;
		host->wait_ms = 0;
	} else if (host->register_ms > at_most_ms) {
		host->register_ms = at_most_ms;
	}
}

static void on_closed(void *owner, struct websocket *ws, const char *why)
{
	struct webgw_agent *agent = owner;
	const bool was_steady = agent->is_open && now_of(agent) - agent->opened_ms >= STEADY_MS;

	if (ws != agent->ws)
		return;
	agent->ws = NULL;
	agent->is_open = agent->tells_nobody = false;
	if (was_steady)
		agent->wait_ms = FIRST_WAIT_MS;
	for (uint8_t i = 0; i < agent->options.n_hosts; i++)
		forget_socket(&agent->hosts[i]);
	close_warm(agent, NULL);
	plan(agent, why);
}

static int read_secret(struct webgw_agent *agent, struct error *reterr)
{
	char *text = NULL;
	size_t len = 0;

	int r = file_read_secret(agent->secret_file, 4096, &text, &len, reterr);
	if (r < 0)
		return r;
	const size_t n = strcspn(text, "\r\n");
	if (n < 2 * WEBGW_MIN_SECRET || n > WEBGW_HEX_SECRET_MAX || n % 2 != 0 || strspn(text, "0123456789abcdefABCDEF") < n)
		r = error_set(reterr, -EINVAL, "the first line of %s is no secret: %d to %d bytes in hex", agent->secret_file,
			      WEBGW_MIN_SECRET, WEBGW_MAX_SECRET);
	else
		snprintf(agent->hex_secret, sizeof(agent->hex_secret), "%.*s", (int)n, text);
	sodium_memzero(text, len);
	free(text);
	return r;
}

static int connect_with(struct webgw_agent *agent, const char *key_pem, const char *certificate_pem, struct error *reterr)
{
	const struct websocket_client_options options = {
		.host = agent->server,
		.port = agent->options.port,
		.tls = { .trust = TLS_TRUST_PIN, .pin = agent->options.pin, .key_pem = key_pem, .certificate_pem = certificate_pem },
		.alpn = WEBGW_SOCKET_ALPN ",http/1.1",
		.max_message = MAX_MESSAGE,
		.max_queue = MAX_QUEUE,
		.handler = { .owner = agent, .opened = on_opened, .message = on_message, .closed = on_closed },
	};
	agent->ws = websocket_connect(agent->websockets, &options, reterr);
	return agent->ws ? 0 : -EINVAL;
}

static void on_retry(uv_timer_t *timer)
{
	struct webgw_agent *agent = container_of(timer, struct webgw_agent, timer);
	char *key = NULL, *certificate = NULL;
	struct error error;
	int r;

	if (!has_a_host_up(agent)) /* note_up() begins again */
		return;
	if (agent->secret_file[0] != '\0')
		r = read_secret(agent, &error);
	else
		r = agent->options.identify(agent->options.owner, &key, &certificate, &error);
	if (r == 0)
		r = connect_with(agent, key, certificate, &error);
	if (key)
		certificate_free_secret(key);
	free(certificate);
	if (r != 0)
		plan(agent, error.message);
}

/* ---- beginning and end ---- */

static void release(struct webgw_agent *agent)
{
	if (--agent->n_open > 0)
		return;
	void (*stopped)(void *owner) = agent->stopped;
	void *const owner = agent->owner;

	SSL_CTX_free(agent->context);
	sodium_memzero(agent->hex_secret, sizeof(agent->hex_secret));
	free(agent->server);
	free(agent->secret_file);
	free(agent);
	if (stopped)
		stopped(owner);
}

static void on_part_closed(void *owner)
{
	release(owner);
}

static void close_tls_host_if_last(struct webgw_agent *agent)
{
	if (agent->is_stopping && agent->n_visits == 0 && agent->tls_host) {
		struct tls_host *host = agent->tls_host;
		agent->tls_host = NULL;
		tls_host_close(host, on_part_closed, agent);
	}
}

static void release_visit(struct webgw_agent *agent)
{
	close_tls_host_if_last(agent);
	release(agent);
}

static void on_timer_closed(uv_handle_t *handle)
{
	release(container_of((uv_timer_t *)handle, struct webgw_agent, timer));
}

static void on_tick_closed(uv_handle_t *handle)
{
	release(container_of((uv_timer_t *)handle, struct webgw_agent, tick));
}

int webgw_agent_start(uv_loop_t *loop, const struct webgw_agent_options *options, struct webgw_agent **ret,
		      struct error *reterr)
{
	struct webgw_agent *agent = calloc(1, sizeof(*agent));

	if (!agent)
		abort();
	const struct tls_options tls = { .trust = TLS_TRUST_PIN, .pin = options->pin, .alpn = WEBGW_ALPN, .resumes = true };
	int r = tls_context_new(&tls, &agent->context, reterr);
	if (r == 0)
		r = websocket_host_new(loop, &agent->websockets, reterr);
	if (r != 0) {
		SSL_CTX_free(agent->context);
		free(agent);
		return r;
	}
	agent->loop = loop;
	agent->options = *options;
	agent->server = strdup(options->host);
	agent->secret_file = strdup(options->secret_file);
	if (!agent->server || !agent->secret_file || tls_host_new(loop, &agent->tls_host) != 0 ||
	    raw_pairs_new(loop, &agent->raw) != 0)
		abort();
	for (uint8_t i = 0; i < options->n_hosts; i++) {
		struct agent_host *host = &agent->hosts[i];
		*host = (struct agent_host){ .agent = agent, .name = options->hosts[i], .targets = options->targets[i] };
		snprintf(host->shown, sizeof(host->shown), "%s%s", options->hosts[i].is_wildcard ? "*." : "",
			 options->hosts[i].name.text);
	}
	link_init_ring(&agent->visits);
	randombytes_buf(agent->seen, sizeof(agent->seen)); /* so that none is seen that was not */
	agent->wait_ms = FIRST_WAIT_MS;
	agent->n_open = 5; /* two timers, WebSockets, TLS, pairs */
	(void)uv_timer_init(loop, &agent->timer);
	(void)uv_timer_init(loop, &agent->tick);
	(void)uv_timer_start(&agent->timer, on_retry, 0, 0);
	(void)uv_timer_start(&agent->tick, on_tick, TICK_MS, TICK_MS);
	*ret = agent;
	return 0;
}

void webgw_agent_stop(struct webgw_agent *agent, void (*stopped)(void *owner), void *owner)
{
	struct link *first;

	agent->is_stopping = true;
	agent->stopped = stopped;
	agent->owner = owner;
	agent->is_open = false;
	while ((first = link_first(&agent->visits)))
		close_visit(container_of(first, struct visit, among));
	for (uint8_t i = 0; i < agent->options.n_hosts; i++)
		if (agent->hosts[i].probe)
			target_probe_end(agent->hosts[i].probe);
	websocket_host_close(agent->websockets, on_part_closed, agent);
	uv_close((uv_handle_t *)&agent->timer, on_timer_closed);
	uv_close((uv_handle_t *)&agent->tick, on_tick_closed);
	raw_pairs_close(agent->raw, on_part_closed, agent);
	agent->raw = NULL;
	close_tls_host_if_last(agent);
}

struct webgw_agent_counters webgw_agent_counters(const struct webgw_agent *agent)
{
	struct webgw_agent_counters counters = agent->counters;

	counters.carried_now += agent->raw ? raw_pairs_count(agent->raw) : 0;
	for (uint8_t i = 0; i < agent->options.n_hosts; i++) {
		counters.warm_now += agent->hosts[i].n_warm;
		counters.subscribed_now += agent->hosts[i].subscription != 0;
	}
	return counters;
}

void webgw_agent_facts(const struct webgw_agent *agent, struct webgw_agent_facts *ret)
{
	*ret = (struct webgw_agent_facts){ .counters = webgw_agent_counters(agent),
					   .is_connected = agent->is_open,
					   .n_hosts = agent->options.n_hosts };
	if (!agent->is_open)
		copy_printable(agent->told, ret->why);
	for (uint8_t i = 0; i < ret->n_hosts; i++) {
		const struct agent_host *host = &agent->hosts[i];
		ret->hosts[i] = (struct webgw_agent_host_facts){ .name = host->name, .targets = host->targets, .warm = host->n_warm,
								 .visitors_now = host->raw.now,
								 .is_down = host->is_down,
								 .is_subscribed = host->subscription != 0 };
		memcpy(ret->hosts[i].refusal, host->refusal, sizeof(host->refusal));
	}
	for (const struct link *at = agent->visits.after; at != &agent->visits; at = at->after) {
		const struct visit *visit = container_of(at, struct visit, among);
		ret->hosts[visit->host - agent->hosts].visitors_now += visit->state == CARRYING;
	}
}
