/*
 * webgw's agents within TLS, while the node is a member, for its certificate: where they subscribe, and where they dial back.
 *
 *   agents ══ wss ══► websocket server ──► webgw          a host of WebSockets of its own, so that it can be closed
 *          ══ TLS ══► data links ──► front door
 */
#include "node/engine_internal.h"

#include "common/log.h"
#include "common/macros.h"
#include "relay/webgw/agent_wire.h"
#include "relay/webgw/data_links.h"

#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct engine_webgw_tls {
	struct websocket_host *websockets;
	struct data_links *links;
	uint8_t n_open;
	struct p2p_engine *engine;
	void (*closed)(void *owner);
	void *owner;
};

static struct tls_options tls_of(const struct p2p_engine *engine)
{
	return (struct tls_options){ .is_server = true,
				     .trust = TLS_TRUST_OPTIONAL,
				     .ca_pem = engine->membership.member.ca_pem,
				     .certificate_pem = engine->membership.member.certificate_pem,
				     .key_pem = engine->identity_key_pem };
}

/*
 * Who dials back says what it can (docs/PROTOCOL-webgw.md, 5); the WebSocket's ALPN is another. A secret says whose it is, no
 * certificate; so the next handshake may resume.
 */
static struct tls_options links_tls_of(const struct p2p_engine *engine)
{
	struct tls_options options = tls_of(engine);

	options.alpn = WEBGW_ALPN;
	options.trust = TLS_TRUST_NOBODY;
	options.resumes = true;
	return options;
}

static bool on_caller(void *owner, const struct dial_caller *caller_take)
{
	struct engine_webgw_tls *tls = owner;

	return front_door_take_caller(tls->engine->front_door, caller_take);
}

static bool on_not_taken(void *owner, int64_t subscription, const struct dial_wanted *wanted)
{
	struct engine_webgw_tls *tls = owner;

	return webgw_not_taken(tls->engine->webgw, subscription, wanted);
}

static bool on_is_there(void *owner, int64_t subscription)
{
	struct engine_webgw_tls *tls = owner;

	return webgw_is_there(tls->engine->webgw, subscription);
}

static bool on_tells_visitors(void *owner, int64_t subscription)
{
	struct engine_webgw_tls *tls = owner;

	return webgw_tells_visitors(tls->engine->webgw, subscription);
}

static int open_links(struct engine_webgw_tls *tls, struct error *reterr)
{
	const struct tls_options options = links_tls_of(tls->engine);
	struct data_links_options links = { .loop = tls->engine->loop,
					    .tls_host = tls->engine->tls_host,
					    .listen = tls->engine->webgw_tls_dial_back,
					    .ports = { .owner = tls,
						       .caller = on_caller,
						       .not_taken = on_not_taken,
						       .is_there = on_is_there,
						       .tells_visitors = on_tells_visitors } };
	int r = tls_context_new(&options, &links.context, reterr);

	if (r != 0)
		return r;
	r = data_links_start(&links, &tls->links, reterr);
	SSL_CTX_free(links.context);
	return r;
}

static void tell_pin(const struct p2p_engine *engine)
{
	struct endpoint shared[DOOR_MAX_LISTEN];
	struct error error;
	struct pin pin;

	if (identity_key_pin(engine->identity_key_pem, &pin, &error) == 0)
		log_info("webgw", "agents are listened to at TCP %s within TLS; for those that are no members this node's pin is %s",
			 endpoint_text(&engine->webgw_tls_listen).s, pin_text(&pin).s);
	if (engine_shares_webgw(engine) && engine_shared_places(engine, shared) > 0)
		log_info("webgw", "they are listened to at the relay's port, TCP %u, as well", engine->public_options.tls_port);
}

int engine_start_webgw_tls(struct p2p_engine *engine, struct error *reterr)
{
	const struct tls_options options = tls_of(engine);

	if (!engine->webgw || endpoint_is_none(&engine->webgw_tls_listen))
		return 0;
	struct engine_webgw_tls *tls = calloc(1, sizeof(*tls));
	if (!tls)
		abort();
	tls->engine = engine;
	engine->webgw_tls = tls;
	int r = websocket_host_new(engine->loop, &tls->websockets, reterr);
	if (r == 0)
		r = open_links(tls, reterr);
	if (r == 0)
		r = webgw_open_tls(engine->webgw, tls->websockets, &engine->webgw_tls_listen, &options, reterr);
	if (r == 0)
		tell_pin(engine);
	else
		error_prefix(reterr, "webgw");
	return r;
}

void engine_renew_webgw_tls(struct p2p_engine *engine)
{
	const struct tls_options options = tls_of(engine);
	struct error error;
	SSL_CTX *context;

	if (!engine->webgw_tls)
		return;
	int r = webgw_set_certificate(engine->webgw, options.certificate_pem, options.key_pem, &error);
	const struct tls_options links_options = links_tls_of(engine);
	if (r == 0)
		r = tls_context_new(&links_options, &context, &error);
	if (r != 0) {
		log_error("webgw", "renewed certificate: %s", error.message);
		return;
	}
	data_links_set_context(engine->webgw_tls->links, context);
	SSL_CTX_free(context);
}

/* Not where the operator has said that only some address is for agents: the shared port may be at others. */
bool engine_shares_webgw(const struct p2p_engine *engine)
{
	const struct endpoint *places[] = { &engine->webgw_tls_listen, &engine->webgw_tls_dial_back };

	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		const struct endpoint any = { .port = places[i]->port };
		if (places[i]->port == 0 || !endpoint_equal(places[i], &any))
			return false;
	}
	return engine->has_webgw;
}

void engine_take_webgw_visitor(struct p2p_engine *engine, bool dials_back, int fd, const struct endpoint *remote, const uint8_t *bytes,
			       size_t n)
{
	struct engine_webgw_tls *tls = engine->webgw_tls;

	if (dials_back && tls && tls->links)
		data_links_take(tls->links, fd, remote, bytes, n);
	else if (!dials_back && tls && engine->webgw)
		webgw_take(engine->webgw, fd, remote);
	else
		close(fd); /* it is being opened, or closed */
}

uint32_t engine_prepare_webgw(struct p2p_engine *engine, int64_t subscription, uint32_t n, uint8_t ret[][WEBGW_EPHEMERAL_LEN])
{
	return engine->webgw_tls && engine->webgw_tls->links ? data_links_prepare(engine->webgw_tls->links, subscription, n, ret) : 0;
}

bool engine_hand_webgw(struct p2p_engine *engine, int64_t subscription, const struct dial_wanted *wanted)
{
	return engine->webgw_tls && engine->webgw_tls->links && data_links_hand(engine->webgw_tls->links, subscription, wanted);
}

bool engine_webgw_links(const struct p2p_engine *engine, struct data_links_counters *ret)
{
	if (!engine->webgw_tls || !engine->webgw_tls->links)
		return false;
	*ret = data_links_counters(engine->webgw_tls->links);
	return true;
}

uint16_t engine_webgw_tls_port(const struct p2p_engine *engine)
{
	return engine->webgw_tls && engine->webgw_tls->links ? data_links_port(engine->webgw_tls->links) : 0;
}

static void on_part_closed(void *owner)
{
	struct engine_webgw_tls *tls = owner;

	if (--tls->n_open > 0)
		return;
	void (*closed)(void *owner) = tls->closed;
	void *closed_owner = tls->owner;
	webgw_close_tls(tls->engine->webgw);
	free(tls);
	closed(closed_owner);
}

void engine_webgw_tls_close(struct engine_webgw_tls *tls, void (*closed)(void *owner), void *owner)
{
	tls->closed = closed;
	tls->owner = owner;
	tls->n_open = 1;
	if (tls->websockets) {
		tls->n_open++;
		websocket_host_close(tls->websockets, on_part_closed, tls);
	}
	if (tls->links) {
		tls->n_open++;
		data_links_stop(tls->links, on_part_closed, tls);
	}
	on_part_closed(tls);
}

void engine_add_webgw_tls_drops(const struct p2p_engine *engine, struct node_status *status)
{
	if (!engine->webgw_tls || !engine->webgw_tls->links)
		return;
	const struct data_links_counters counters = data_links_counters(engine->webgw_tls->links);
	node_status_add_drop(status, "webgw: dialled back in TLS and told no secret", counters.slow + counters.broken);
	node_status_add_drop(status, "webgw: warm connections ended: silent, or nobody's", counters.warm_ended);
	node_status_add_drop(status, "webgw: visitors not taken by a warm connection", counters.warm_lost);
	node_status_add_drop(status, "webgw: dialled back in TLS, too many or too fast", counters.refused);
	node_status_add_drop(status, "webgw: dialled back in TLS, no descriptors", counters.no_descriptors);
}
