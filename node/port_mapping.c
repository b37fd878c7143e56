#include "node/port_mapping.h"

#include "common/clock.h"
#include "common/log.h"
#include "node/upnp.h"
#include "node/wireguard/link.h"

#include <assert.h>
#include <errno.h>
#include <net/if.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Routers tell everybody on 224.0.0.1 that they have begun anew (RFC 6886 section 3.2.1, RFC 6887 section 14.1). */
#define ANNOUNCE_PORT 5350
#define UPNP_REMOVE_MAX_MS 1500

/* On libuv's pool: what it works with is its own meanwhile. */
struct asking_upnp {
	uv_work_t work;
	struct port_mapping *mapping;
	struct upnp_request request;
	bool removes;
	int result;
	struct endpoint external;
	uint32_t lifetime_s;
	struct error error;
};

struct port_mapping {
	struct port_mapping_options options;
	struct port_mapping_fsm fsm;
	uv_timer_t timer;
	uv_udp_t socket, announcements;
	uint8_t buffer[PCP_MAX_LEN + 1]; /* one more: so that what is too long shows */
	bool is_nobody;			 /* sending told that nobody listens there */
	struct endpoint told;		 /* the router that knows no way, as was logged */
	int stop_fd;			 /* readable: UPnP is given up */
	int n_jobs;
	int n_open; /* handles and jobs that have not ended; 0: it lives */
	void (*closed)(void *owner);
	void *closed_owner;
};

static void feed(struct port_mapping *mapping, struct port_mapping_input input);

/* ---- the end ---- */

static void on_part_closed(struct port_mapping *mapping)
{
	if (--mapping->n_open > 0)
		return;
	close(mapping->stop_fd);
	mapping->closed(mapping->closed_owner);
	free(mapping);
}

static void on_handle_closed(uv_handle_t *handle)
{
	on_part_closed(handle->data);
}

static void close_all(struct port_mapping *mapping)
{
	const uint64_t one = 1;

	if (mapping->n_open > 0)
		return;
	mapping->n_open = 3 + mapping->n_jobs;
	(void)!write(mapping->stop_fd, &one, sizeof(one));
	uv_close((uv_handle_t *)&mapping->timer, on_handle_closed);
	uv_close((uv_handle_t *)&mapping->socket, on_handle_closed);
	uv_close((uv_handle_t *)&mapping->announcements, on_handle_closed);
}

/* ---- UPnP ---- */

static void run_upnp(uv_work_t *work)
{
	struct asking_upnp *asking = container_of(work, struct asking_upnp, work);

	if (asking->removes)
		asking->result = upnp_remove(&asking->request, &asking->error);
	else
		asking->result =
			upnp_map(&asking->request, &asking->external, &asking->lifetime_s, &asking->error);
}

static void on_upnp_done(uv_work_t *work, int status)
{
	struct asking_upnp *asking = container_of(work, struct asking_upnp, work);
	struct port_mapping *mapping = asking->mapping;
	struct port_mapping_input input = { .type = PORT_MAPPING_IN_UPNP };

	mapping->n_jobs--;
	if (asking->result != 0)
		log_debug("endpoint", "UPnP: %s", asking->error.message);
	/* The network may have changed meanwhile: that was another router's answer. */
	const bool is_of_now = endpoint_equal(&asking->request.ours, &mapping->fsm.ours);
	if (asking->result == 0 && !asking->removes) {
		input.external = asking->external;
		input.lifetime_s = asking->lifetime_s;
	}
	free(asking);
	if (mapping->n_open > 0)
		on_part_closed(mapping);
	else if (is_of_now)
		feed(mapping, input);
}

static void ask_upnp(struct port_mapping *mapping, const struct port_mapping_action *action, bool removes)
{
	struct asking_upnp *asking = calloc(1, sizeof(*asking));

	if (!asking)
		abort();
	asking->mapping = mapping;
	asking->removes = removes;
	asking->request = (struct upnp_request){ .router = mapping->fsm.router,
						 .ours = mapping->fsm.ours,
						 .external_port = action->external.port,
						 .lifetime_s = action->lifetime_s,
						 .max_ms = removes ? UPNP_REMOVE_MAX_MS : 0,
						 .stop_fd = mapping->stop_fd };
	mapping->n_jobs++;
	if (uv_queue_work(mapping->options.loop, &asking->work, run_upnp, on_upnp_done) != 0)
		abort();
}

/* ---- what the machine wants ---- */

/* A router that is asked anew is the only one who is heard, and whose refusal is. */
static void send_request(struct port_mapping *mapping, const struct port_mapping_action *action)
{
	uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)action->bytes, (unsigned)action->len);
	struct sockaddr_storage router;

	(void)endpoint_to_sockaddr(&mapping->fsm.router, &router);
	(void)uv_udp_connect(&mapping->socket, NULL);
	if (uv_udp_connect(&mapping->socket, (const struct sockaddr *)&router) != 0)
		return; /* no route any more: the network is about to be looked at */
	if (uv_udp_try_send(&mapping->socket, &buffer, 1, NULL) == UV_ECONNREFUSED)
		mapping->is_nobody = true;
}

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
	log_info("endpoint", "router %s forwards no port: neither PCP, NAT-PMP nor UPnP",
		 endpoint_ip_text(&mapping->told).s);
}

static void carry_out(struct port_mapping *mapping, const struct port_mapping_action *action)
{
	switch (action->type) {
	case PORT_MAPPING_DO_SEND:
		send_request(mapping, action);
		return;
	case PORT_MAPPING_DO_UPNP_MAP:
		ask_upnp(mapping, action, false);
		return;
	case PORT_MAPPING_DO_UPNP_REMOVE:
		ask_upnp(mapping, action, true);
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

static void set_timer(struct port_mapping *mapping, uint64_t now_ns)
{
	const uint64_t deadline_ns = mapping->fsm.deadline_ns;

	if (mapping->n_open > 0)
		return;
	if (deadline_ns == 0)
		uv_timer_stop(&mapping->timer);
	else
		uv_timer_start(&mapping->timer, on_timer, (deadline_ns - now_ns) / 1000000 + 1, 0);
}

static void step(struct port_mapping *mapping, struct port_mapping_input *input)
{
	struct port_mapping_actions actions;

	input->now_ns = clock_now_ns();
	port_mapping_fsm_step(&mapping->fsm, input, &actions);
	if (mapping->fsm.state == PORT_MAPPING_RESTING)
		tell_no_way(mapping);
	for (uint32_t i = 0; i < actions.n; i++)
		carry_out(mapping, &actions.all[i]);
	set_timer(mapping, input->now_ns);
}

static void feed(struct port_mapping *mapping, struct port_mapping_input input)
{
	step(mapping, &input);
	for (int i = 0; mapping->is_nobody && i < PORT_MAPPING_N_WAYS; i++) {
		struct port_mapping_input nobody = { .type = PORT_MAPPING_IN_NOBODY };
		mapping->is_nobody = false;
		step(mapping, &nobody);
	}
}

/* ---- the sockets ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	struct port_mapping *mapping = handle->data;

	*ret = uv_buf_init((char *)mapping->buffer, sizeof(mapping->buffer));
}

static void on_received(uv_udp_t *socket, ssize_t n, const uv_buf_t *buffer, const struct sockaddr *from,
			unsigned flags)
{
	struct port_mapping *mapping = socket->data;
	struct port_mapping_input input = { .type = PORT_MAPPING_IN_DATAGRAM };

	if (n == UV_ECONNREFUSED && socket == &mapping->socket) {
		feed(mapping, (struct port_mapping_input){ .type = PORT_MAPPING_IN_NOBODY });
		return;
	}
	if (n <= 0 || !from)
		return;
	input.from = endpoint_from_sockaddr(from);
	input.bytes = mapping->buffer;
	input.len = (size_t)n;
	feed(mapping, input);
}

/* That nobody else has the port is no matter: then the next renewal shows what the router has forgotten. */
static void listen_to_announcements(struct port_mapping *mapping)
{
	const struct sockaddr_in name = { .sin_family = AF_INET, .sin_port = htons(ANNOUNCE_PORT) };

	if (uv_udp_bind(&mapping->announcements, (const struct sockaddr *)&name, UV_UDP_REUSEADDR) == 0)
		(void)uv_udp_recv_start(&mapping->announcements, on_alloc, on_received);
}

static void open_socket(struct port_mapping *mapping)
{
	const struct sockaddr_in name = { .sin_family = AF_INET };

	if (uv_udp_bind(&mapping->socket, (const struct sockaddr *)&name, 0) == 0)
		(void)uv_udp_recv_start(&mapping->socket, on_alloc, on_received);
}

/* ---- life ---- */

static void on_trace(void *arg, const char *line)
{
	log_debug("endpoint", "%s", line);
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
	}
	feed(mapping, input);
}

struct port_mapping *port_mapping_new(const struct port_mapping_options *options)
{
	struct port_mapping *mapping = calloc(1, sizeof(*mapping));
	uint64_t seed;

	if (!mapping)
		abort();
	mapping->options = *options;
	mapping->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	randombytes_buf(&seed, sizeof(seed));
	port_mapping_fsm_init(&mapping->fsm, seed);
	mapping->fsm.trace = on_trace;
	uv_timer_init(options->loop, &mapping->timer);
	uv_udp_init(options->loop, &mapping->socket);
	uv_udp_init(options->loop, &mapping->announcements);
	mapping->timer.data = mapping->socket.data = mapping->announcements.data = mapping;
	open_socket(mapping);
	listen_to_announcements(mapping);
	port_mapping_look(mapping);
	return mapping;
}

struct endpoint port_mapping_external(const struct port_mapping *mapping)
{
	return mapping->fsm.external;
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
