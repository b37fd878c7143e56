#include "node/port_mapping.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/wire.h"
#include "node/upnp.h"
#include "node/wireguard/link.h"

#include <assert.h>
#include <errno.h>
#include <net/if.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Routers tell everybody on 224.0.0.1 that they have begun anew (RFC 6886 section 3.2.1, RFC 6887 section 14.1). */
#define ANNOUNCE_PORT 5350
#define UPNP_REMOVE_MAX_MS 1500

/* The timer stands still while the machine sleeps: what is due then is noticed within so long. */
#define MAX_WAIT_MS 30000
#define SECRET_LEN  32
#define HASH_LEN    16 /* the least that libsodium gives */
static_assert(HASH_LEN >= PORT_MAPPING_NONCE_LEN && HASH_LEN >= crypto_generichash_BYTES_MIN, "room for a nonce");

enum upnp_deed { UPNP_MAP, UPNP_REMOVE, UPNP_FIND };

/* On libuv's pool: what it works with is its own meanwhile. */
struct upnp_job {
	uv_work_t work;
	struct port_mapping *mapping;
	struct upnp_request request;
	struct upnp_service service; /* remove: who forwards, of no address: nobody; map: who was asked to */
	uint32_t serial;
	enum upnp_deed deed;
	int result;
	struct endpoint external;
	uint32_t lifetime_s;
	struct error error;
};

/* Of one network. */
struct router_socket {
	uv_udp_t udp;
	struct port_mapping *mapping;
};

struct port_mapping {
	struct port_mapping_options options;
	uint8_t secret[SECRET_LEN]; /* nonces are made of it */
	struct port_mapping_fsm fsm;
	uv_timer_t timer;
	uv_udp_t announcements;
	struct router_socket *socket;	 /* NULL: no network */
	uint8_t buffer[PCP_MAX_LEN + 1]; /* one more: so that what is too long shows */
	struct endpoint told;		 /* the router that knows no way, as was logged */
	struct upnp_job *job;		 /* under way; NULL: none */
	struct port_mapping_action wanted_removal, wanted_map; /* after it; of no port: none */
	struct upnp_service forwards;			       /* who was asked last, of no address: nobody */
	bool is_probed; /* the ways that were not needed are asked for, too, once in each network */
	bool is_closing;
	int n_open; /* handles and jobs that have not ended */
	void (*closed)(void *owner);
	void *closed_owner;
};

static void feed(struct port_mapping *mapping, struct port_mapping_input input);

/* ---- the end ---- */

static void on_part_closed(struct port_mapping *mapping)
{
	if (--mapping->n_open > 0 || !mapping->is_closing)
		return;
	mapping->closed(mapping->closed_owner);
	sodium_memzero(mapping->secret, sizeof(mapping->secret));
	free(mapping);
}

static void on_handle_closed(uv_handle_t *handle)
{
	on_part_closed(handle->data);
}

/* ---- UPnP ---- */

static void run_upnp(uv_work_t *work)
{
	struct upnp_job *job = container_of(work, struct upnp_job, work);

	if (job->deed == UPNP_MAP)
		job->result = upnp_map(&job->request, &job->external, &job->lifetime_s, &job->service, &job->error);
	else if (job->deed == UPNP_FIND)
		job->result = upnp_find(&job->request, &job->error);
	else if (!endpoint_is_none(&job->service.control.host))
		job->result = upnp_remove(&job->request, &job->error);
}

static enum port_mapping_outcome outcome_of(const struct upnp_job *job)
{
	if (job->deed == UPNP_REMOVE)
		return PORT_MAPPING_UPNP_REMOVED;
	switch (job->result) {
	case 0:
		return PORT_MAPPING_UPNP_MAPPED;
	case -ENETUNREACH:
		return endpoint_is_none(&job->service.control.host) ? PORT_MAPPING_UPNP_SILENT :
								      PORT_MAPPING_UPNP_PASSING;
	case -EACCES:
	case -EADDRINUSE:
		return PORT_MAPPING_UPNP_REFUSED;
	case -ENOENT:
		return PORT_MAPPING_UPNP_NONE;
	default:
		return PORT_MAPPING_UPNP_SILENT;
	}
}

static void begin_wanted(struct port_mapping *mapping);

/* What has not answered by now does not speak it. */
static void tell_found(struct port_mapping *mapping, struct endpoint router, int result)
{
	if (result == -ECANCELED || result == UV_ECANCELED)
		return;
	feed(mapping, (struct port_mapping_input){
			      .type = PORT_MAPPING_IN_KNOWN,
			      .router = router,
			      .way = PORT_MAPPING_UPNP,
			      .known = result == 0 ? PORT_MAPPING_SPOKEN : PORT_MAPPING_NOT_SPOKEN });
	feed(mapping, (struct port_mapping_input){ .type = PORT_MAPPING_IN_KNOWN,
						   .router = router,
						   .way = PORT_MAPPING_NATPMP,
						   .known = PORT_MAPPING_NOT_SPOKEN });
}

static void on_upnp_done(uv_work_t *work, int status)
{
	struct upnp_job *job = container_of(work, struct upnp_job, work);
	struct port_mapping *mapping = job->mapping;

	if (status != 0)
		job->result = status; /* it never began */
	if (job->result != 0)
		log_debug("endpoint", "UPnP: %s", status == 0 ? job->error.message : uv_strerror(status));
	const struct port_mapping_input input = { .type = PORT_MAPPING_IN_UPNP,
						  .serial = job->serial,
						  .outcome = outcome_of(job),
						  .external = job->external,
						  .lifetime_s = job->lifetime_s };
	const struct endpoint router = job->request.router;
	const bool finds = job->deed == UPNP_FIND;
	const int result = job->result;
	if (job->deed == UPNP_REMOVE || (job->deed == UPNP_MAP && !endpoint_is_none(&job->service.control.host)))
		mapping->forwards = job->deed == UPNP_REMOVE ? (struct upnp_service){ 0 } : job->service;
	mapping->job = NULL;
	close(job->request.stop_fd);
	free(job);
	if (!mapping->is_closing) {
		begin_wanted(mapping);
		if (finds)
			tell_found(mapping, router, result);
		else
			feed(mapping, input);
	}
	on_part_closed(mapping);
}

static void cancel_job(struct port_mapping *mapping)
{
	const uint64_t one = 1;

	if (mapping->job && uv_cancel((uv_req_t *)&mapping->job->work) != 0)
		(void)!write(mapping->job->request.stop_fd, &one, sizeof(one));
}

static bool is_same_host(const struct endpoint *a, const struct endpoint *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

static void begin_job(struct port_mapping *mapping, const struct port_mapping_action *wanted, enum upnp_deed deed)
{
	struct upnp_job *job = calloc(1, sizeof(*job));
	const int stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (!job || stop_fd < 0)
		abort();
	job->mapping = mapping;
	job->deed = deed;
	job->serial = wanted->serial;
	if (deed == UPNP_REMOVE && is_same_host(&mapping->forwards.control.host, &wanted->router))
		job->service = mapping->forwards;
	job->request = (struct upnp_request){ .router = wanted->router,
					      .ours = wanted->ours,
					      .external_port = wanted->external.port,
					      .lifetime_s = wanted->lifetime_s,
					      .max_ms = deed == UPNP_REMOVE ? UPNP_REMOVE_MAX_MS : 0,
					      .stop_fd = stop_fd,
					      .service = deed == UPNP_REMOVE ? &job->service : NULL };
	mapping->job = job;
	mapping->n_open++;
	if (uv_queue_work(mapping->options.loop, &job->work, run_upnp, on_upnp_done) != 0)
		abort();
}

/* What is given back before what is asked for: that may be the same port. */
static void begin_wanted(struct port_mapping *mapping)
{
	const struct port_mapping_action none = { 0 };

	if (mapping->job)
		return;
	if (mapping->wanted_removal.external.port != 0) {
		begin_job(mapping, &mapping->wanted_removal, UPNP_REMOVE);
		mapping->wanted_removal = none;
	} else if (mapping->wanted_map.external.port != 0) {
		begin_job(mapping, &mapping->wanted_map, UPNP_MAP);
		mapping->wanted_map = none;
	}
}

/* A removal under way is let be, it is short; for what is asked for otherwise there is no use any more. */
static void want_upnp(struct port_mapping *mapping, const struct port_mapping_action *action)
{
	mapping->wanted_map = (struct port_mapping_action){ 0 };
	if (action->type == PORT_MAPPING_DO_UPNP_REMOVE)
		mapping->wanted_removal = *action;
	else
		mapping->wanted_map = *action;
	if (mapping->job && mapping->job->deed != UPNP_REMOVE)
		cancel_job(mapping);
	begin_wanted(mapping);
}

/* ---- the sockets ---- */

static void on_alloc_announcement(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct port_mapping *mapping = handle->data;

	*ret = uv_buf_init((char *)mapping->buffer, sizeof(mapping->buffer));
}

static void on_announced(uv_udp_t *socket, ssize_t n, const uv_buf_t *buffer, const struct sockaddr *from,
			 unsigned flags)
{
	struct port_mapping *mapping = socket->data;

	if (n > 0 && from)
		feed(mapping, (struct port_mapping_input){ .type = PORT_MAPPING_IN_ANNOUNCEMENT,
							   .from = endpoint_from_sockaddr(from),
							   .bytes = mapping->buffer,
							   .len = (size_t)n });
}

/* That somebody else has the port is no matter: then the next renewal shows what the router has forgotten. */
static void listen_to_announcements(struct port_mapping *mapping)
{
	const struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(ANNOUNCE_PORT) };

	if (uv_udp_bind(&mapping->announcements, (const struct sockaddr *)&name, UV_UDP_REUSEADDR) == 0)
		(void)uv_udp_recv_start(&mapping->announcements, on_alloc_announcement, on_announced);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct router_socket *socket = handle->data;

	*ret = uv_buf_init((char *)socket->mapping->buffer, sizeof(socket->mapping->buffer));
}

static void on_received(uv_udp_t *udp, ssize_t n, const uv_buf_t *buffer, const struct sockaddr *from, unsigned flags)
{
	struct router_socket *socket = udp->data;
	struct port_mapping *mapping = socket->mapping;

	if (n == UV_ECONNREFUSED)
		feed(mapping, (struct port_mapping_input){ .type = PORT_MAPPING_IN_NOBODY });
	else if (n > 0 && from)
		feed(mapping, (struct port_mapping_input){ .type = PORT_MAPPING_IN_DATAGRAM,
							   .from = endpoint_from_sockaddr(from),
							   .bytes = mapping->buffer,
							   .len = (size_t)n });
}

static void on_socket_closed(uv_handle_t *handle)
{
	struct router_socket *socket = handle->data;

	on_part_closed(socket->mapping);
	free(socket);
}

static void close_socket(struct port_mapping *mapping)
{
	if (mapping->socket)
		uv_close((uv_handle_t *)&mapping->socket->udp, on_socket_closed);
	mapping->socket = NULL;
}

/* Bound to our address, which the router compares with the one that it is told; connected, so that nobody else is
 * heard, and a refusal is. That it fails shows by itself: the network has changed again, or nobody answers. */
static void change_socket(struct port_mapping *mapping)
{
	struct sockaddr_storage router, ours;
	struct endpoint from = mapping->fsm.ours;

	close_socket(mapping);
	mapping->is_probed = false;
	if (mapping->fsm.state == PORT_MAPPING_OFF)
		return;
	struct router_socket *socket = calloc(1, sizeof(*socket));
	if (!socket || uv_udp_init(mapping->options.loop, &socket->udp) != 0)
		abort();
	mapping->n_open++;
	socket->mapping = mapping;
	socket->udp.data = socket;
	mapping->socket = socket;
	from.port = 0;
	(void)endpoint_to_sockaddr(&from, &ours);
	(void)endpoint_to_sockaddr(&mapping->fsm.router, &router);
	if (uv_udp_bind(&socket->udp, (const struct sockaddr *)&ours, 0) != 0 ||
	    uv_udp_connect(&socket->udp, (const struct sockaddr *)&router) != 0 ||
	    uv_udp_recv_start(&socket->udp, on_alloc, on_received) != 0)
		close_socket(mapping);
}

/* An error that sending finds is that of an earlier datagram, and this one has not left. */
static void send_request(struct port_mapping *mapping, const struct port_mapping_action *action)
{
	uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)action->bytes, (unsigned)action->len);

	if (mapping->socket && uv_udp_try_send(&mapping->socket->udp, &buffer, 1, NULL) == UV_ECONNREFUSED)
		(void)uv_udp_try_send(&mapping->socket->udp, &buffer, 1, NULL);
}

static void close_all(struct port_mapping *mapping)
{
	if (mapping->is_closing)
		return;
	mapping->is_closing = true;
	cancel_job(mapping);
	close_socket(mapping);
	uv_close((uv_handle_t *)&mapping->timer, on_handle_closed);
	uv_close((uv_handle_t *)&mapping->announcements, on_handle_closed);
}

/* ---- what the machine wants ---- */

static void tell_changed(struct port_mapping *mapping)
{
	const struct endpoint *external = &mapping->fsm.external;

	if (endpoint_is_none(external))
		log_info("endpoint", "the router forwards no port to us any more");
	else
		log_info("endpoint", "the router forwards %s to us (%s)", endpoint_text(external).s,
			 port_mapping_way_name(mapping->fsm.way));
	mapping->options.changed(mapping->options.owner, external);
}

/* Once for each router. */
static void tell_no_way(struct port_mapping *mapping)
{
	if (endpoint_equal(&mapping->told, &mapping->fsm.router))
		return;
	mapping->told = mapping->fsm.router;
	log_info("endpoint", "router %s forwards no port%s: neither PCP, NAT-PMP nor UPnP",
		 endpoint_ip_text(&mapping->told).s, mapping->fsm.is_passing ? " at the moment" : "");
}

static void carry_out(struct port_mapping *mapping, const struct port_mapping_action *action)
{
	switch (action->type) {
	case PORT_MAPPING_DO_SOCKET:
		change_socket(mapping);
		return;
	case PORT_MAPPING_DO_SEND:
		send_request(mapping, action);
		return;
	case PORT_MAPPING_DO_UPNP_MAP:
	case PORT_MAPPING_DO_UPNP_REMOVE:
		want_upnp(mapping, action);
		return;
	case PORT_MAPPING_DO_CHANGED:
		if (!mapping->closed)
			tell_changed(mapping);
		return;
	case PORT_MAPPING_DO_ENDED:
		close_all(mapping);
		return;
	}
}

static void on_timer(uv_timer_t *timer)
{
	feed(container_of(timer, struct port_mapping, timer),
	     (struct port_mapping_input){ .type = PORT_MAPPING_IN_DEADLINE });
}

static void set_timer(struct port_mapping *mapping)
{
	const uint64_t deadline_ns = mapping->fsm.deadline_ns, now_ns = clock_now_ns();
	uint64_t wait_ms = deadline_ns > now_ns ? (deadline_ns - now_ns) / 1000000 + 1 : 0;

	if (mapping->is_closing)
		return;
	if (wait_ms > MAX_WAIT_MS)
		wait_ms = MAX_WAIT_MS;
	uv_update_time(mapping->options.loop);
	if (deadline_ns == 0)
		uv_timer_stop(&mapping->timer);
	else
		uv_timer_start(&mapping->timer, on_timer, wait_ms, 0);
}

/* So that whoever looks for what is wrong with a network knows all of its router. */
static void probe(struct port_mapping *mapping)
{
	const struct port_mapping_action wanted = { .router = mapping->fsm.router, .ours = mapping->fsm.ours };
	struct port_mapping_action question = { .type = PORT_MAPPING_DO_SEND };

	mapping->is_probed = true;
	if (mapping->fsm.known[PORT_MAPPING_NATPMP] == PORT_MAPPING_UNKNOWN) {
		question.len = natpmp_encode_address(question.bytes, sizeof(question.bytes));
		send_request(mapping, &question);
	}
	if (mapping->fsm.known[PORT_MAPPING_UPNP] == PORT_MAPPING_UNKNOWN && !mapping->job)
		begin_job(mapping, &wanted, UPNP_FIND);
}

static void feed(struct port_mapping *mapping, struct port_mapping_input input)
{
	struct port_mapping_actions actions;

	if (mapping->is_closing)
		return;
	input.now_ns = clock_now_ns();
	port_mapping_fsm_step(&mapping->fsm, &input, &actions);
	if (mapping->fsm.state == PORT_MAPPING_RESTING)
		tell_no_way(mapping);
	for (uint32_t i = 0; i < actions.n; i++)
		carry_out(mapping, &actions.all[i]);
	if (mapping->fsm.state == PORT_MAPPING_MAPPED && !mapping->is_probed)
		probe(mapping);
	set_timer(mapping);
}

/* ---- life ---- */

static void on_trace(void *arg, const char *line)
{
	log_debug("endpoint", "%s", line);
}

/* The same for the same router, address and port, and known to nobody but us. */
static void make_nonce(const struct port_mapping *mapping, struct port_mapping_input *input)
{
	uint8_t bytes[2 * ENDPOINT_WIRE_LEN], hash[HASH_LEN];
	struct wire_writer w = wire_writer(bytes, sizeof(bytes));

	wire_put_endpoint(&w, &input->router);
	wire_put_endpoint(&w, &input->ours);
	crypto_generichash(hash, sizeof(hash), bytes, sizeof(bytes), mapping->secret, sizeof(mapping->secret));
	memcpy(input->nonce, hash, sizeof(input->nonce));
}

void port_mapping_look(struct port_mapping *mapping)
{
	struct port_mapping_input input = { .type = PORT_MAPPING_IN_NETWORK };
	struct in_addr router, ours;
	char interface[IF_NAMESIZE];
	int ifindex;

	if (mapping->closed)
		return;
	if (link_find_router(&router, &ours, &ifindex) == 0 && if_indextoname((unsigned)ifindex, interface) &&
	    strcmp(interface, mapping->options.interface) != 0) {
		input.router = endpoint_from_v4(ntohl(router.s_addr), 0);
		input.ours = endpoint_from_v4(ntohl(ours.s_addr), mapping->options.port);
		make_nonce(mapping, &input);
	}
	feed(mapping, input);
}

struct port_mapping *port_mapping_new(const struct port_mapping_options *options)
{
	static const char context[] = "p2pnode port mapping";
	struct port_mapping *mapping = calloc(1, sizeof(*mapping));

	if (!mapping)
		abort();
	mapping->options = *options;
	mapping->options.node_key = NULL;
	crypto_generichash(mapping->secret, sizeof(mapping->secret), (const uint8_t *)context, sizeof(context),
			   options->node_key->bytes, sizeof(options->node_key->bytes));
	port_mapping_fsm_init(&mapping->fsm);
	mapping->fsm.trace = on_trace;
	uv_timer_init(options->loop, &mapping->timer);
	uv_udp_init(options->loop, &mapping->announcements);
	mapping->timer.data = mapping->announcements.data = mapping;
	mapping->n_open = 2;
	listen_to_announcements(mapping);
	port_mapping_look(mapping);
	return mapping;
}

struct endpoint port_mapping_external(const struct port_mapping *mapping)
{
	return mapping->fsm.external;
}

void port_mapping_fill_status(const struct port_mapping *mapping, struct node_status *status)
{
	static const enum node_known knowns[PORT_MAPPING_N_KNOWN] = { [PORT_MAPPING_UNKNOWN] = NODE_KNOWN_NOT,
								      [PORT_MAPPING_SPOKEN] = NODE_KNOWN_YES,
								      [PORT_MAPPING_NOT_SPOKEN] = NODE_KNOWN_NO };
	const struct port_mapping_fsm *fsm = &mapping->fsm;

	snprintf(status->port_mapping.state, sizeof(status->port_mapping.state), "%s",
		 port_mapping_state_name(fsm->state));
	if (fsm->state == PORT_MAPPING_OFF)
		return;
	status->port_mapping.router = fsm->router;
	status->port_mapping.pcp = knowns[fsm->known[PORT_MAPPING_PCP]];
	status->port_mapping.natpmp = knowns[fsm->known[PORT_MAPPING_NATPMP]];
	status->port_mapping.upnp = knowns[fsm->known[PORT_MAPPING_UPNP]];
	if (endpoint_is_none(&fsm->external))
		return;
	status->port_mapping.external = fsm->external;
	snprintf(status->port_mapping.way, sizeof(status->port_mapping.way), "%s", port_mapping_way_name(fsm->way));
}

void port_mapping_close(struct port_mapping *mapping, void (*closed)(void *owner), void *owner)
{
	if (!mapping) {
		closed(owner);
		return;
	}
	assert(!mapping->closed);
	mapping->closed = closed;
	mapping->closed_owner = owner;
	feed(mapping, (struct port_mapping_input){ .type = PORT_MAPPING_IN_STOP }); /* and it tells when it has ended */
}
