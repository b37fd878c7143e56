#include "node/expose/acceptor.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/macros.h"

#include <assert.h>
#include <errno.h>
#include <openssl/types.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_MS   10000
#define TICKET_KEYS_MS (24ull * 3600 * 1000)
#define CHECKS_OF_UP 6 /* so many times as seldom a target is looked after that was up */
#define FIRST_PORT 20000 /* below those that the kernel gives to who asks for any */
#define N_PORTS	   10000

/* An exposure with its gate; it belongs to all who hold the gate. */
struct exposed {
	struct door_gate gate;
	struct exposure exposure;
	struct terminated terminated; /* where TLS ends here */
	struct site_files files;      /* if it has some; else what is known of the certificate by ACME */
	uint64_t pem_number, challenge_number; /* of ACME: what is shown */
};

/* Somebody who comes to the target to see whether it is there. Lives until its socket is closed. */
struct check {
	uv_tcp_t socket;
	uv_connect_t request;
	struct acceptor *acceptor;
	struct exposed *exposed; /* held */
};

struct acceptor {
	struct acceptor_options options;
	uint16_t wanted_port;
	struct front_door *door; /* NULL: not open yet */
	struct terminator *terminator; /* NULL: not needed yet */
	struct error failure;	 /* to open, as was logged; else no message */
	struct error tls_failure; /* the same of the terminator */
	uv_timer_t timer;
	uint64_t n_turns; /* of the timer */
	uint32_t n;
	struct exposed *exposed[EXPOSURE_MAX]; /* held */
	struct check *checks[EXPOSURE_MAX];    /* under way, of exposed[i]; NULL: none */
	struct endpoint *doors;
	uint32_t n_doors;

	uint32_t n_open; /* checks, the timer, the door */
	void (*closed)(void *owner);
	void *closed_owner;
};

/* ---- exposures and their gates ---- */

static bool is_allowed(const struct door_gate *gate, const struct endpoint *visitor)
{
	return exposure_allows(&container_of(gate, const struct exposed, gate)->exposure, visitor);
}

static void free_exposed(struct door_gate *gate)
{
	struct exposed *exposed = container_of(gate, struct exposed, gate);

	terminated_deinit(&exposed->terminated);
	free(exposed);
}

static struct exposed *new_exposed(const struct acceptor *acceptor, const struct exposure *exposure)
{
	struct exposed *exposed = calloc(1, sizeof(*exposed));

	if (!exposed)
		abort();
	exposed->exposure = *exposure;
	exposed->gate.rate = exposure->rate;
	exposed->gate.rate_source = exposure->rate_source;
	exposed->gate.allows = exposure->n_allow > 0 ? is_allowed : NULL;
	exposed->gate.free = free_exposed;
	door_gate_init(&exposed->gate);
	terminated_init(&exposed->terminated, acceptor->terminator, &exposure->target, exposure->proxy);
	return exposed;
}

/* One that is there as it should be, held once more; or a new one. */
static struct exposed *find_or_make(const struct acceptor *acceptor, const struct exposure *exposure)
{
	for (uint32_t i = 0; i < acceptor->n; i++) {
		struct exposed *exposed = acceptor->exposed[i];
		if (memcmp(&exposed->exposure, exposure, sizeof(*exposure)) == 0) {
			door_gate_hold(&exposed->gate);
			return exposed;
		}
	}
	return new_exposed(acceptor, exposure);
}

static enum door_header header_of(const struct exposure *exposure)
{
	switch (exposure->proxy) {
	case EXPOSURE_PROXY_V1:
		return DOOR_HEADER_V1;
	case EXPOSURE_PROXY_V2:
		return DOOR_HEADER_V2;
	case EXPOSURE_PROXY_NONE:
	case EXPOSURE_N_PROXY:
		break;
	}
	return DOOR_NO_HEADER;
}

/* Visitors led to the acceptor itself would come again, and again: they are led nowhere. */
static struct endpoint target_of(const struct acceptor *acceptor, const struct exposure *exposure)
{
	const struct endpoint nowhere = { 0 };
	struct endpoint own = acceptor->options.address;

	own.port = acceptor->door ? acceptor_port(acceptor) : acceptor->wanted_port;
	if (!endpoint_equal(&own, &exposure->target))
		return exposure->target;
	log_warning("expose", "the target of %s is where this node takes visitors in: nobody is led there",
		    exposure->host.name.text);
	return nowhere;
}

static bool is_terminated(const struct exposed *exposed)
{
	return exposed->exposure.tls != EXPOSURE_TLS_PASS;
}

/*
 * HTTPS ends here. What comes in plain goes on as it is, unless an ACME server may be among those who come: then all is looked at
 * until it has its answer.
 */
static bool goes_by_terminator(struct exposed *exposed, int scheme)
{
	if (scheme == DOOR_HTTPS)
		return is_terminated(exposed);
	return scheme == DOOR_HTTP && exposed->terminated.terminator && tls_site_has_answer(&exposed->terminated.site);
}

static void add_route(struct door_routes *routes, struct exposed *exposed, const struct endpoint *target)
{
	const struct endpoint nowhere = { 0 };
	struct door_rule rule = { .host = exposed->exposure.host,
				  .header = header_of(&exposed->exposure),
				  .gate = &exposed->gate,
				  .is_without_quic = !exposure_has_quic(&exposed->exposure) };
	int r = 0;

	for (int i = 0; i < DOOR_N_SCHEMES && r == 0; i++) {
		memset(rule.takes, 0, sizeof(rule.takes));
		rule.takes[i] = true;
		rule.sink = goes_by_terminator(exposed, i) ? &exposed->terminated.sink : NULL;
		const bool is_lost = rule.sink && !exposed->terminated.terminator;
		r = exposed->exposure.takes[i] ? door_routes_add(routes, &rule, is_lost ? &nowhere : target) : 0;
	}
	if (r != 0)
		log_warning("expose", "%s stands twice: the first is used", rule.host.name.text);
}

static struct door_routes *make_routes(const struct acceptor *acceptor)
{
	struct door_routes *routes = door_routes_new(acceptor->n);

	for (uint32_t i = 0; i < acceptor->n; i++) {
		const struct endpoint target = target_of(acceptor, &acceptor->exposed[i]->exposure);
		add_route(routes, acceptor->exposed[i], &target);
	}
	door_routes_set_doors(routes, acceptor->doors, acceptor->n_doors);
	return routes;
}

/* ---- the door ---- */

static int start_door(struct acceptor *acceptor, uint16_t port, struct error *reterr)
{
	struct front_door_options options = { .n_listen = 1, .takes_header = true };

	options.listen[0] = acceptor->options.address;
	options.listen[0].port = port;
	return front_door_start(acceptor->options.loop, &options, make_routes(acceptor), &acceptor->door, reterr);
}

static void open_door(struct acceptor *acceptor)
{
	struct error error;
	int r = start_door(acceptor, acceptor->wanted_port, &error);

	if (r == -EADDRINUSE)
		r = start_door(acceptor, 0, &error);
	if (r != 0 && acceptor->failure.message[0] == '\0')
		log_warning("expose", "visitors cannot come in: %s", error.message);
	acceptor->failure = r != 0 ? error : (struct error){ .message = "" };
	if (r != 0)
		return; /* it is tried again with the targets */
	log_info("expose", "front doors bring visitors to %s, port %u",
		 endpoint_ip_text(&acceptor->options.address).s, acceptor_port(acceptor));
	if (acceptor->options.port_changed)
		acceptor->options.port_changed(acceptor->options.owner);
}

static void update_door(struct acceptor *acceptor)
{
	if (acceptor->door)
		front_door_set_routes_take(acceptor->door, make_routes(acceptor));
	else if (acceptor->n > 0)
		open_door(acceptor);
}

/* ---- where TLS ends ---- */

static void start_terminator(struct acceptor *acceptor, const struct exposure *exposures, uint32_t n)
{
	const struct terminator_options options = { .max_visits = 0 };
	struct error error;
	bool is_needed = false;

	for (uint32_t i = 0; i < n; i++)
		is_needed = is_needed || exposures[i].tls != EXPOSURE_TLS_PASS;
	if (!is_needed || acceptor->terminator)
		return;
	const int r = terminator_new(&options, &acceptor->terminator, &error);
	if (r != 0 && acceptor->tls_failure.message[0] == '\0')
		log_error("expose", "%s", error.message); /* they are led nowhere: add_route() */
	acceptor->tls_failure = r != 0 ? error : (struct error){ .message = "" };
}

/* Those from before it was there have none. No door leads to it yet by them. */
static void give_terminator(struct acceptor *acceptor)
{
	for (uint32_t i = 0; i < acceptor->n; i++)
		if (!acceptor->exposed[i]->terminated.terminator)
			acceptor->exposed[i]->terminated.terminator = acceptor->terminator;
}

/* A start that failed is tried again: with the targets. */
static void retry_terminator(struct acceptor *acceptor)
{
	for (uint32_t i = 0; i < acceptor->n && !acceptor->terminator; i++)
		start_terminator(acceptor, &acceptor->exposed[i]->exposure, 1);
	if (acceptor->n == 0 || !acceptor->terminator || acceptor->exposed[0]->terminated.terminator)
		return;
	give_terminator(acceptor);
	update_door(acceptor);
}

static void look_at_files(struct acceptor *acceptor)
{
	for (uint32_t i = 0; i < acceptor->n; i++) {
		struct exposed *exposed = acceptor->exposed[i];
		if (exposed->exposure.certificate[0] != '\0')
			site_files_look(&exposed->files, &exposed->exposure, &exposed->terminated.site,
					clock_now_ns() / 1000000);
	}
}

/* ---- by ACME ---- */

static bool is_day_old(const struct exposed *exposed)
{
	return clock_now_ns() / 1000000 >= exposed->files.taken_ms + TICKET_KEYS_MS;
}

/* A new context also once a day: the keys of tickets are its own. */
static void show_certificate(struct exposed *exposed, const struct acme_site *site)
{
	struct error error;
	SSL_CTX *context;

	if (!site->pem || (exposed->pem_number == site->pem_number && !is_day_old(exposed)))
		return;
	if (tls_site_context_new(&exposed->exposure.host, site->pem, site->pem, exposed->exposure.has_h2, &context,
				 &exposed->files.dates, &error) != 0) {
		log_warning("expose", "%s: %s", exposed->exposure.host.name.text, error.message); /* it was good when it came */
		return;
	}
	tls_site_set_context_take(&exposed->terminated.site, context);
	exposed->pem_number = site->pem_number;
	exposed->files.taken_ms = clock_now_ns() / 1000000;
	exposed->files.is_shown = true;
}

/* The routes must follow when it returns true. */
static bool show_challenge(struct exposed *exposed, const struct acme_site *site)
{
	struct tls_site *shown = &exposed->terminated.site;
	const bool had_answer = tls_site_has_answer(shown);
	struct tls_site_dates dates;
	struct error error;
	SSL_CTX *context = NULL;

	if (exposed->challenge_number == site->challenge_number)
		return false;
	if (site->challenge_pem && is_terminated(exposed) &&
	    tls_site_context_new(&exposed->exposure.host, site->challenge_pem, site->challenge_pem, false, &context, &dates,
				 &error) != 0)
		log_warning("expose", "%s: %s", exposed->exposure.host.name.text, error.message);
	tls_site_set_challenge_take(shown, context);
	tls_site_set_answer(shown, site->token, site->answer);
	exposed->challenge_number = site->challenge_number;
	return had_answer != tls_site_has_answer(shown);
}

static bool look_at_acme(struct acceptor *acceptor)
{
	bool has_changed = false;

	for (uint32_t i = 0; acceptor->options.acme && i < acceptor->n; i++) {
		struct exposed *exposed = acceptor->exposed[i];
		struct acme_site site = { .pem = NULL };
		if (!exposed->exposure.host.is_wildcard)
			(void)acme_find(acceptor->options.acme, &exposed->exposure.host.name, &site);
		if (exposed->exposure.tls == EXPOSURE_TLS_ACME)
			show_certificate(exposed, &site);
		has_changed = show_challenge(exposed, &site) || has_changed;
	}
	return has_changed;
}

void acceptor_look_at_acme(struct acceptor *acceptor)
{
	if (look_at_acme(acceptor))
		update_door(acceptor);
}

bool acceptor_get_tls(const struct acceptor *acceptor, uint32_t i, struct acceptor_tls *ret)
{
	assert(i < acceptor->n);
	const struct exposed *exposed = acceptor->exposed[i];
	*ret = (struct acceptor_tls){ .counters = terminated_counters(&exposed->terminated),
				      .has_certificate = exposed->files.is_shown,
				      .dates = exposed->files.dates,
				      .failure = exposed->files.failure.message };
	return is_terminated(exposed);
}

/* ---- are the targets there? ---- */

static void on_part_closed(struct acceptor *acceptor)
{
	if (--acceptor->n_open > 0)
		return;
	void (*closed)(void *owner) = acceptor->closed;
	void *owner = acceptor->closed_owner;
	terminator_free(acceptor->terminator); /* no door leads there any more */
	free(acceptor->doors);
	free(acceptor);
	if (closed)
		closed(owner);
}

static void on_check_closed(uv_handle_t *handle)
{
	struct check *check = container_of((uv_tcp_t *)handle, struct check, socket);
	struct acceptor *acceptor = check->acceptor;

	door_gate_let_go(&check->exposed->gate);
	free(check);
	on_part_closed(acceptor);
}

static void end_check(struct check *check)
{
	struct acceptor *acceptor = check->acceptor;

	for (uint32_t i = 0; i < acceptor->n; i++)
		if (acceptor->checks[i] == check)
			acceptor->checks[i] = NULL;
	if (!uv_is_closing((uv_handle_t *)&check->socket))
		uv_close((uv_handle_t *)&check->socket, on_check_closed);
}

static void on_connected(uv_connect_t *request, int status)
{
	struct check *check = container_of(request, struct check, request);

	/* UV_ECANCELED: it was given up, for want of an answer or of an exposure. */
	if (status != UV_ECANCELED)
		door_gate_set_state(&check->exposed->gate, status == 0 ? DOOR_TARGET_UP : DOOR_TARGET_DOWN);
	end_check(check);
}

static void start_check(struct acceptor *acceptor, uint32_t i)
{
	struct check *check = calloc(1, sizeof(*check));
	struct sockaddr_storage address;

	if (!check)
		abort();
	(void)endpoint_to_sockaddr(&acceptor->exposed[i]->exposure.target, &address);
	check->acceptor = acceptor;
	check->exposed = acceptor->exposed[i];
	door_gate_hold(&check->exposed->gate);
	acceptor->n_open++;
	acceptor->checks[i] = check;
	int r = uv_tcp_init(acceptor->options.loop, &check->socket);
	assert(r == 0);
	r = uv_tcp_connect(&check->request, &check->socket, (struct sockaddr *)&address, on_connected);
	if (r != 0) {
		door_gate_set_state(&check->exposed->gate, DOOR_TARGET_DOWN);
		end_check(check);
	}
}

/* with_up: also those that were there when they were tried last. */
static void check_targets(struct acceptor *acceptor, bool with_up)
{
	struct door_gate_counters counters;

	for (uint32_t i = 0; i < acceptor->n; i++) {
		if (acceptor->checks[i]) { /* no answer since the last time */
			door_gate_set_state(&acceptor->exposed[i]->gate, DOOR_TARGET_DOWN);
			end_check(acceptor->checks[i]);
		}
		if (acceptor->exposed[i]->exposure.takes[DOOR_UDP])
			continue; /* what answers nobody in TCP may be well */
		(void)acceptor_get(acceptor, i, &counters);
		if (counters.state != DOOR_TARGET_UP || with_up)
			start_check(acceptor, i);
	}
}

static void on_timer(uv_timer_t *timer)
{
	struct acceptor *acceptor = container_of(timer, struct acceptor, timer);

	retry_terminator(acceptor);
	if (acceptor->n > 0 && !acceptor->door)
		open_door(acceptor);
	look_at_files(acceptor);
	acceptor_look_at_acme(acceptor);
	check_targets(acceptor, ++acceptor->n_turns % CHECKS_OF_UP == 0);
}

/* ---- from outside ---- */

static uint16_t port_of(const struct public_key *key)
{
	uint8_t hash[16];

	crypto_generichash(hash, sizeof(hash), key->bytes, sizeof(key->bytes), NULL, 0);
	return (uint16_t)(FIRST_PORT + ((unsigned)hash[0] << 8 | hash[1]) % N_PORTS);
}

struct acceptor *acceptor_new(const struct acceptor_options *options)
{
	struct acceptor *acceptor = calloc(1, sizeof(*acceptor));

	if (!acceptor)
		abort();
	acceptor->options = *options;
	acceptor->options.node_key = NULL;
	if (acceptor->options.check_ms == 0)
		acceptor->options.check_ms = CHECK_MS;
	acceptor->wanted_port = port_of(options->node_key);
	uv_timer_init(options->loop, &acceptor->timer);
	acceptor->n_open = 1;
	return acceptor;
}

static void drop_all(struct acceptor *acceptor)
{
	for (uint32_t i = 0; i < acceptor->n; i++) {
		if (acceptor->checks[i])
			end_check(acceptor->checks[i]);
		door_gate_let_go(&acceptor->exposed[i]->gate);
	}
	acceptor->n = 0;
}

void acceptor_set_exposures(struct acceptor *acceptor, const struct exposure *exposures, uint32_t n)
{
	struct exposed *next[EXPOSURE_MAX];

	assert(n <= EXPOSURE_MAX);
	start_terminator(acceptor, exposures, n);
	for (uint32_t i = 0; i < n; i++)
		next[i] = find_or_make(acceptor, &exposures[i]);
	drop_all(acceptor);
	memcpy(acceptor->exposed, next, n * sizeof(*next));
	acceptor->n = n;
	give_terminator(acceptor);
	look_at_files(acceptor);
	(void)look_at_acme(acceptor);
	update_door(acceptor);
	if (n > 0)
		uv_timer_start(&acceptor->timer, on_timer, acceptor->options.check_ms, acceptor->options.check_ms);
	else
		uv_timer_stop(&acceptor->timer);
	check_targets(acceptor, false);
}

void acceptor_set_doors(struct acceptor *acceptor, const struct endpoint *doors, uint32_t n)
{
	if (n == acceptor->n_doors && (n == 0 || memcmp(doors, acceptor->doors, n * sizeof(*doors)) == 0))
		return;
	free(acceptor->doors);
	acceptor->doors = calloc(n > 0 ? n : 1, sizeof(*doors));
	if (!acceptor->doors)
		abort();
	if (n > 0)
		memcpy(acceptor->doors, doors, n * sizeof(*doors));
	acceptor->n_doors = n;
	update_door(acceptor);
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_part_closed(container_of((uv_timer_t *)handle, struct acceptor, timer));
}

static void on_door_closed(void *owner)
{
	on_part_closed(owner);
}

void acceptor_close(struct acceptor *acceptor, void (*cb)(void *owner), void *owner)
{
	acceptor->closed = cb;
	acceptor->closed_owner = owner;
	drop_all(acceptor);
	uv_close((uv_handle_t *)&acceptor->timer, on_timer_closed);
	if (acceptor->door) {
		acceptor->n_open++;
		front_door_stop(acceptor->door, on_door_closed, acceptor);
		acceptor->door = NULL;
	}
}

uint16_t acceptor_port(const struct acceptor *acceptor)
{
	return acceptor->door ? front_door_port(acceptor->door, 0) : 0;
}

const char *acceptor_failure(const struct acceptor *acceptor)
{
	return acceptor->failure.message;
}

const char *acceptor_tls_failure(const struct acceptor *acceptor, uint32_t i)
{
	const bool is_without = i < acceptor->n && acceptor->exposed[i]->exposure.tls != EXPOSURE_TLS_PASS &&
				!acceptor->terminator;

	return is_without ? acceptor->tls_failure.message : "";
}

uint32_t acceptor_count(const struct acceptor *acceptor)
{
	return acceptor->n;
}

const struct exposure *acceptor_get(const struct acceptor *acceptor, uint32_t i, struct door_gate_counters *ret)
{
	assert(i < acceptor->n);
	*ret = door_gate_counters(&acceptor->exposed[i]->gate);
	return &acceptor->exposed[i]->exposure;
}

struct front_door_counters acceptor_counters(const struct acceptor *acceptor)
{
	const struct front_door_counters none = { 0 };

	return acceptor->door ? front_door_counters(acceptor->door) : none;
}
