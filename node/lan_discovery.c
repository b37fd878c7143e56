#include "node/lan_discovery.h"

#include "actors/lan_discovery/lan_announcement_wire.h"
#include "actors/lan_discovery/lan_discovery_fsm.h"
#include "actors/lan_discovery/lan_sources.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/macros.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULE	      "lan"
#define LAN_MAX_PEERS 1024
#define MAX_CALLS     4	  /* datagrams of one call on one address, LAN_MAX_TAGS peers each */
#define MIN_TAGS      8	  /* a call is filled up with random ones: how many peers we have is nobody's business */
#define READS	      64  /* datagrams of one look at a socket */
#define LOOK_MS	      1000
#define MAX_ADDRESSES 32

enum { FAMILY_V4, FAMILY_V6, N_FAMILIES };

/*
 * Two sockets: the group's port may be shared with other nodes of this machine, answers need one of our own. Calls are
 * taken only from the group's, answers only from our own.
 */
struct lan_socket {
	uv_poll_t poll;
	struct lan_discovery *lan;
	enum lan_kind kind; /* of what it takes */
	int fd; /* -1: none */
};

struct lan_peer {
	uint32_t id;
	struct public_key node_key;
	struct lan_keys keys;
};

/* An address of ours on a link. */
struct place {
	struct endpoint endpoint; /* port: of our packets */
	uint32_t interface;
};

struct lan_discovery {
	struct lan_discovery_ports ports;
	struct secret_key node_key;
	struct secret_key session_secret;
	struct public_key session_key;
	char except[IF_NAMESIZE];
	struct lan_discovery_fsm fsm;
	uv_timer_t deadline, look;
	struct lan_socket group[N_FAMILIES], own[N_FAMILIES];
	uint32_t n_peers, next_peer; /* the one with whom the next call begins, when there are too many for one */
	struct lan_peer *peers;
	uint32_t n_places; /* at the last change */
	struct place places[MAX_ADDRESSES];
	struct lan_sources callers, answerers;
	struct lan_discovery_counters counters;
	int n_open;
	void (*closed)(void *owner);
	void *closed_owner;
};

static const char *const groups[N_FAMILIES] = { "239.255.112.50", "ff12::7032:6c" };

/* ---- sockets ---- */

static int family_of(const struct endpoint *endpoint)
{
	return endpoint_is_v4(endpoint) ? FAMILY_V4 : FAMILY_V6;
}

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

/*
 * To the group's address, so that nobody who is not on the link gets through. That of IPv6 would be one of one link
 * only, so there the address that a datagram was sent to is looked at: is_to_group().
 */
static int bind_to(int fd, int family, uint16_t port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	const struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };

	if (port != 0)
		(void)inet_pton(AF_INET, groups[FAMILY_V4], &v4.sin_addr);
	return family == FAMILY_V4 ? bind(fd, (const struct sockaddr *)&v4, sizeof(v4)) :
				     bind(fd, (const struct sockaddr *)&v6, sizeof(v6));
}

/* A socket or -errno. What is sent stays on the link. */
static int open_socket(int family, uint16_t port)
{
	int fd = socket(family == FAMILY_V4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int r = fd;

	if (fd < 0)
		return -errno;
	if (port != 0)
		r = set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (r >= 0 && family == FAMILY_V6)
		r = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (r >= 0 && family == FAMILY_V6)
		r = set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
	if (r >= 0 && family == FAMILY_V6)
		r = set(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 1);
	if (r >= 0 && family == FAMILY_V4)
		r = set(fd, IPPROTO_IP, IP_MULTICAST_TTL, 1);
	if (r >= 0)
		r = bind_to(fd, family, port);
	if (r >= 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* Also where we are members already. */
static void join(const struct lan_discovery *lan, int family, uint32_t interface)
{
	struct ip_mreqn v4 = { .imr_ifindex = (int)interface };
	struct ipv6_mreq v6 = { .ipv6mr_interface = interface };
	int fd = lan->group[family].fd, r;

	if (fd < 0)
		return;
	if (family == FAMILY_V4) {
		(void)inet_pton(AF_INET, groups[family], &v4.imr_multiaddr);
		r = setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &v4, sizeof(v4));
	} else {
		(void)inet_pton(AF_INET6, groups[family], &v6.ipv6mr_multiaddr);
		r = setsockopt(fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &v6, sizeof(v6));
	}
	if (r != 0 && errno != EADDRINUSE)
		log_debug(MODULE, "cannot listen on interface %u: %s", interface, strerror(errno));
}

/* ---- where we are ---- */

static bool is_link(const struct lan_discovery *lan, const struct ifaddrs *at)
{
	return at->ifa_addr && (at->ifa_flags & IFF_UP) && (at->ifa_flags & IFF_MULTICAST) &&
	       !(at->ifa_flags & (IFF_LOOPBACK | IFF_POINTOPOINT)) && strcmp(at->ifa_name, lan->except) != 0 &&
	       (at->ifa_addr->sa_family == AF_INET || at->ifa_addr->sa_family == AF_INET6);
}

/* Not link-local ones: those of one link mean nothing to the rest of the node. */
static uint32_t find_places(const struct lan_discovery *lan, struct place *ret)
{
	struct ifaddrs *all;
	uint32_t n = 0;

	if (getifaddrs(&all) != 0)
		return 0;
	for (const struct ifaddrs *at = all; at && n < MAX_ADDRESSES; at = at->ifa_next) {
		if (!is_link(lan, at))
			continue;
		ret[n] = (struct place){ .endpoint = endpoint_from_sockaddr(at->ifa_addr),
					 .interface = if_nametoindex(at->ifa_name) };
		if (ret[n].endpoint.scope_id != 0 || ret[n].interface == 0)
			continue;
		ret[n].endpoint.port = lan->ports.port(lan->ports.owner);
		n += ret[n].endpoint.port != 0;
	}
	freeifaddrs(all);
	return n;
}

static void join_all(const struct lan_discovery *lan)
{
	struct place places[MAX_ADDRESSES];
	uint32_t n = find_places(lan, places);

	for (uint32_t i = 0; i < n; i++)
		join(lan, family_of(&places[i].endpoint), places[i].interface);
}

static bool has_place(const struct place *places, uint32_t n, const struct place *wanted)
{
	for (uint32_t i = 0; i < n; i++)
		if (places[i].interface == wanted->interface && endpoint_equal(&places[i].endpoint, &wanted->endpoint))
			return true;
	return false;
}

/* Since the last look. Routes change, and addresses are told again by each router advertisement: that is none. */
static bool places_changed(struct lan_discovery *lan)
{
	struct place places[MAX_ADDRESSES];
	const uint32_t n = find_places(lan, places);
	bool changed = n != lan->n_places;

	for (uint32_t i = 0; i < n && !changed; i++)
		changed = !has_place(lan->places, lan->n_places, &places[i]);
	memcpy(lan->places, places, n * sizeof(*places));
	lan->n_places = n;
	return changed;
}

/* Our address towards somebody on a link. */
static bool source_towards(const struct endpoint *to, struct endpoint *ret)
{
	struct sockaddr_storage address;
	socklen_t len = endpoint_to_sockaddr(to, &address);
	int fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && connect(fd, (const struct sockaddr *)&address, len) == 0;

	len = sizeof(address);
	ok = ok && getsockname(fd, (struct sockaddr *)&address, &len) == 0;
	if (ok)
		*ret = endpoint_from_sockaddr((const struct sockaddr *)&address);
	if (fd >= 0)
		close(fd);
	return ok;
}

/* ---- sending ---- */

/* From that address: the tags depend on it. Lost is lost: calls are repeated. */
static void send_from(struct lan_discovery *lan, const struct place *place, const struct endpoint *to,
		      const uint8_t *bytes, size_t len)
{
	union {
		struct cmsghdr align;
		uint8_t bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	} control = { 0 };
	struct in_pktinfo v4 = { .ipi_ifindex = (int)place->interface };
	struct in6_pktinfo v6 = { .ipi6_ifindex = place->interface };
	const bool is_v4 = endpoint_is_v4(&place->endpoint);
	struct sockaddr_storage address;
	struct iovec iov = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr msg = { .msg_name = &address, .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control };
	const size_t info_len = is_v4 ? sizeof(v4) : sizeof(v6);
	const int fd = lan->own[family_of(&place->endpoint)].fd;

	msg.msg_namelen = endpoint_to_sockaddr(to, &address);
	msg.msg_controllen = CMSG_SPACE(info_len);
	memcpy(&v4.ipi_spec_dst, &place->endpoint.ip[12], sizeof(v4.ipi_spec_dst));
	memcpy(&v6.ipi6_addr, place->endpoint.ip, sizeof(v6.ipi6_addr));
	control.align.cmsg_level = is_v4 ? IPPROTO_IP : IPPROTO_IPV6;
	control.align.cmsg_type = is_v4 ? IP_PKTINFO : IPV6_PKTINFO;
	control.align.cmsg_len = CMSG_LEN(info_len);
	memcpy(CMSG_DATA(&control.align), is_v4 ? (const void *)&v4 : (const void *)&v6, info_len);
	if (fd >= 0 && sendmsg(fd, &msg, MSG_DONTWAIT) == (ssize_t)len)
		lan->counters.n_sent++;
}

static struct lan_announcement new_announcement(const struct lan_discovery *lan, enum lan_kind kind, uint16_t port,
						uint64_t sequence)
{
	return (struct lan_announcement){
		.kind = kind, .port = port, .sequence = sequence, .session_key = lan->session_key
	};
}

/* One datagram: the next peers' tags, and random ones up to a multiple of MIN_TAGS. */
static void call_some(struct lan_discovery *lan, const struct place *place, uint32_t first, uint32_t n)
{
	struct lan_announcement call = new_announcement(lan, LAN_CALL, place->endpoint.port,
							lan_discovery_fsm_call_number(&lan->fsm));
	struct endpoint to;
	uint8_t bytes[LAN_MAX_LEN];

	for (uint32_t i = 0; i < n; i++)
		lan_tag(lan->peers[(first + i) % lan->n_peers].keys.to_peer, &call, &place->endpoint, NULL,
			call.tags[call.n_tags++]);
	for (; call.n_tags % MIN_TAGS != 0; call.n_tags++)
		randombytes_buf(call.tags[call.n_tags], LAN_TAG_LEN);
	if (endpoint_parse_ip(groups[family_of(&place->endpoint)], LAN_DISCOVERY_PORT, &to) == 0)
		send_from(lan, place, &to, bytes, lan_announcement_encode(&call, bytes, sizeof(bytes)));
}

static void call_all(struct lan_discovery *lan)
{
	struct place places[MAX_ADDRESSES];
	uint32_t n_places = find_places(lan, places);
	uint32_t n = lan->n_peers < MAX_CALLS * LAN_MAX_TAGS ? lan->n_peers : MAX_CALLS * LAN_MAX_TAGS;

	for (uint32_t i = 0; i < n_places; i++)
		for (uint32_t k = 0; k < n; k += LAN_MAX_TAGS)
			call_some(lan, &places[i], lan->next_peer + k, n - k < LAN_MAX_TAGS ? n - k : LAN_MAX_TAGS);
	if (n > 0)
		lan->next_peer = (lan->next_peer + n) % lan->n_peers;
}

/* To what came from there, with our number. */
static void answer(struct lan_discovery *lan, const struct lan_peer *peer, const struct endpoint *to,
		   const struct lan_announcement *theirs, uint64_t sequence)
{
	struct lan_answered answered = { .session_key = theirs->session_key };
	struct place place = { 0 };
	struct lan_announcement announcement;
	uint8_t bytes[LAN_MAX_LEN];

	if (!source_towards(to, &place.endpoint) ||
	    lan_sessions_shared(&lan->session_secret, &theirs->session_key, answered.shared) != 0)
		return;
	announcement = new_announcement(lan, LAN_ANSWER, lan->ports.port(lan->ports.owner), sequence);
	announcement.answered = theirs->sequence;
	announcement.n_tags = 1;
	lan_tag(peer->keys.to_peer, &announcement, &place.endpoint, &answered, announcement.tags[0]);
	sodium_memzero(&answered, sizeof(answered));
	if (announcement.port != 0)
		send_from(lan, &place, to, bytes, lan_announcement_encode(&announcement, bytes, sizeof(bytes)));
}

/* ---- deciding ---- */

static void on_deadline(uv_timer_t *timer);

static struct lan_output step(struct lan_discovery *lan, struct lan_input input)
{
	struct lan_output output;
	uint64_t now_ns = clock_now_ns();

	input.now_ns = now_ns;
	lan_discovery_fsm_step(&lan->fsm, &input, &output);
	if (output.call) {
		join_all(lan);
		call_all(lan);
	}
	if (lan->fsm.deadline_ns == 0)
		uv_timer_stop(&lan->deadline);
	else
		uv_timer_start(&lan->deadline, on_deadline,
			       lan->fsm.deadline_ns > now_ns ? (lan->fsm.deadline_ns - now_ns) / 1000000 + 1 : 1, 0);
	return output;
}

static void on_deadline(uv_timer_t *timer)
{
	(void)step(container_of(timer, struct lan_discovery, deadline), (struct lan_input){ .type = LAN_IN_DEADLINE });
}

static void on_look(uv_timer_t *timer)
{
	struct lan_discovery *lan = container_of(timer, struct lan_discovery, look);

	(void)step(lan, (struct lan_input){ .type = LAN_IN_MISSING, .n_missing = lan->ports.n_missing(lan->ports.owner) });
}

/* ---- receiving ---- */

static bool has_tag(const struct lan_announcement *announcement, const uint8_t tag[LAN_TAG_LEN])
{
	uint64_t begin, other;

	memcpy(&begin, tag, sizeof(begin));
	for (uint32_t i = 0; i < announcement->n_tags; i++) {
		memcpy(&other, announcement->tags[i], sizeof(other)); /* quick: 64 tags for each of 1024 peers */
		if (begin == other && sodium_memcmp(tag, announcement->tags[i], LAN_TAG_LEN) == 0)
			return true;
	}
	return false;
}

/* Whose announcement it is; NULL: nobody's who means us. */
static const struct lan_peer *sender_of(const struct lan_discovery *lan, const struct lan_announcement *announcement,
					const struct endpoint *from)
{
	struct lan_answered answered = { .session_key = lan->session_key };
	const struct lan_peer *sender = NULL;
	uint8_t tag[LAN_TAG_LEN];

	if (announcement->kind == LAN_ANSWER &&
	    lan_sessions_shared(&lan->session_secret, &announcement->session_key, answered.shared) != 0)
		return NULL;
	for (uint32_t i = 0; i < lan->n_peers && !sender; i++) {
		lan_tag(lan->peers[i].keys.from_peer, announcement, from, &answered, tag);
		if (has_tag(announcement, tag))
			sender = &lan->peers[i];
	}
	sodium_memzero(&answered, sizeof(answered));
	return sender;
}

/* Before anything is computed. */
static bool is_looked_at(struct lan_discovery *lan, const struct lan_announcement *announcement,
			 const struct endpoint *from)
{
	const uint64_t now_ns = clock_now_ns();
	const bool is_call = announcement->kind == LAN_CALL;

	if (!is_call && !lan_discovery_fsm_is_expected(&lan->fsm, announcement->answered, now_ns)) {
		lan->counters.repetitions++;
		return false;
	}
	if (!lan_sources_take(is_call ? &lan->callers : &lan->answerers, from, now_ns / 1000000)) {
		lan->counters.too_many++;
		return false;
	}
	return true;
}

static void receive(struct lan_discovery *lan, enum lan_kind kind, const struct endpoint *from, const uint8_t *bytes,
		    size_t len)
{
	struct lan_announcement announcement;
	struct lan_input input;
	struct lan_output output;
	const struct lan_peer *peer;
	uint64_t repetitions = lan->fsm.n_repetitions;

	if (lan_announcement_decode(bytes, len, &announcement) != 0 || announcement.kind != kind) {
		lan->counters.malformed++;
		return;
	}
	if (public_key_equal(&announcement.session_key, &lan->session_key))
		return; /* our own call comes back */
	if (!is_looked_at(lan, &announcement, from))
		return;
	peer = sender_of(lan, &announcement, from);
	if (!peer) {
		lan->counters.strangers++;
		return;
	}
	input = (struct lan_input){ .type = announcement.kind == LAN_CALL ? LAN_IN_CALL : LAN_IN_ANSWER,
				    .peer_id = peer->id,
				    .session = announcement.session_key,
				    .sequence = announcement.sequence,
				    .answered = announcement.answered,
				    .from = *from };
	input.from.port = announcement.port;
	output = step(lan, input);
	lan->counters.repetitions += lan->fsm.n_repetitions - repetitions;
	if (output.answer)
		answer(lan, peer, from, &announcement, output.sequence);
	if (!output.found)
		return;
	log_info(MODULE, "peer=%u is on this link: %s", peer->id, endpoint_text(&input.from).s);
	lan->ports.found(lan->ports.owner, peer->id, &announcement.session_key, &input.from);
}

/* IPv4: nothing else gets to a socket that is bound to the group. */
static bool is_to_group(struct msghdr *msg, const struct endpoint *from)
{
	struct in6_pktinfo info;

	if (endpoint_is_v4(from))
		return true;
	for (struct cmsghdr *at = CMSG_FIRSTHDR(msg); at; at = CMSG_NXTHDR(msg, at)) {
		if (at->cmsg_level != IPPROTO_IPV6 || at->cmsg_type != IPV6_PKTINFO)
			continue;
		memcpy(&info, CMSG_DATA(at), sizeof(info));
		return IN6_IS_ADDR_MULTICAST(&info.ipi6_addr);
	}
	return false;
}

static ssize_t receive_from(const struct lan_socket *socket, uint8_t *bytes, size_t cap, struct endpoint *ret_from,
			    bool *ret_to_group)
{
	union {
		struct cmsghdr align;
		uint8_t bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	} control;
	struct sockaddr_storage address;
	struct iovec iov = { .iov_base = bytes, .iov_len = cap };
	struct msghdr msg = { .msg_name = &address,
			      .msg_namelen = sizeof(address),
			      .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = &control,
			      .msg_controllen = sizeof(control) };
	ssize_t len = recvmsg(socket->fd, &msg, MSG_DONTWAIT);

	if (len < 0)
		return len;
	*ret_from = endpoint_from_sockaddr((const struct sockaddr *)&address);
	*ret_to_group = is_to_group(&msg, ret_from);
	return len;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct lan_socket *socket = container_of(poll, struct lan_socket, poll);
	uint8_t bytes[LAN_MAX_LEN + 1];
	struct endpoint from;

	for (int i = 0; i < READS && socket->fd >= 0; i++) {
		bool to_group;
		ssize_t len = receive_from(socket, bytes, sizeof(bytes), &from, &to_group);
		if (len < 0)
			return;
		if (to_group || socket->kind == LAN_ANSWER)
			receive(socket->lan, socket->kind, &from, bytes, (size_t)len);
	}
}

/* ---- the peers ---- */

/* Both are sorted by id: each look goes on where the one before ended. */
static const struct lan_peer *find_peer(const struct lan_peer *peers, uint32_t n, uint32_t *next,
					const struct map_peer *wanted)
{
	while (*next < n && peers[*next].id < wanted->id)
		++*next;
	if (*next < n && peers[*next].id == wanted->id && public_key_equal(&peers[*next].node_key, &wanted->node_key))
		return &peers[*next];
	return NULL;
}

static void free_peers(struct lan_peer *peers, uint32_t n)
{
	if (peers)
		sodium_memzero(peers, n * sizeof(*peers));
	free(peers);
}

void lan_discovery_set_map(struct lan_discovery *lan, const struct map *map)
{
	struct lan_peer *before = lan->peers;
	const uint32_t n_before = lan->n_peers;
	const uint32_t n = map->n_peers < LAN_MAX_PEERS ? map->n_peers : LAN_MAX_PEERS;
	uint32_t next = 0;

	lan->peers = calloc(n + 1, sizeof(*lan->peers));
	if (!lan->peers)
		abort();
	lan->n_peers = 0;
	for (uint32_t i = 0; i < n; i++) {
		struct lan_peer *peer = &lan->peers[lan->n_peers];
		const struct lan_peer *known = find_peer(before, n_before, &next, &map->peers[i]);

		if (known)
			*peer = *known;
		else if (lan_keys_derive(&lan->node_key, &map->peers[i].node_key, &peer->keys) != 0)
			continue;
		peer->id = map->peers[i].id;
		peer->node_key = map->peers[i].node_key;
		lan->n_peers++;
	}
	lan->next_peer = lan->n_peers > 0 ? lan->next_peer % lan->n_peers : 0;
	free_peers(before, n_before);
}

/* ---- life ---- */

void lan_discovery_set_connected(struct lan_discovery *lan, bool connected)
{
	(void)step(lan, (struct lan_input){ .type = LAN_IN_CONTROL, .is_connected = connected });
	if (!connected) {
		uv_timer_start(&lan->look, on_look, LOOK_MS, LOOK_MS);
		return;
	}
	uv_timer_stop(&lan->look);
	(void)step(lan, (struct lan_input){ .type = LAN_IN_MISSING });
}

void lan_discovery_link_changed(struct lan_discovery *lan)
{
	join_all(lan);
	if (places_changed(lan))
		(void)step(lan, (struct lan_input){ .type = LAN_IN_LINK });
}

void lan_discovery_forget(struct lan_discovery *lan, uint32_t peer_id)
{
	(void)step(lan, (struct lan_input){ .type = LAN_IN_FORGET, .peer_id = peer_id });
}

struct lan_discovery_counters lan_discovery_counters(const struct lan_discovery *lan)
{
	return lan->counters;
}

static void start_socket(struct lan_discovery *lan, uv_loop_t *loop, struct lan_socket *socket, int family,
			 uint16_t port)
{
	int fd = open_socket(family, port);

	socket->lan = lan;
	socket->kind = port != 0 ? LAN_CALL : LAN_ANSWER;
	socket->fd = -1;
	if (fd == -EAFNOSUPPORT)
		return;
	if (fd < 0) {
		log_warning(MODULE, "peers on this link are not found by %s: %s", family == FAMILY_V4 ? "IPv4" : "IPv6",
			    strerror(-fd));
		return;
	}
	if (uv_poll_init(loop, &socket->poll, fd) != 0) {
		close(fd);
		return;
	}
	socket->fd = fd;
	lan->n_open++;
	uv_poll_start(&socket->poll, UV_READABLE, on_readable);
}

struct lan_discovery *lan_discovery_new(const struct lan_discovery_options *options)
{
	struct lan_discovery *lan = calloc(1, sizeof(*lan));

	if (!lan)
		abort();
	lan->ports = options->ports;
	lan->node_key = *options->node_key;
	lan->session_secret = *options->session_secret;
	secret_key_public(&lan->session_secret, &lan->session_key);
	snprintf(lan->except, sizeof(lan->except), "%s", options->except);
	randombytes_buf(lan->callers.seed, sizeof(lan->callers.seed));
	randombytes_buf(lan->answerers.seed, sizeof(lan->answerers.seed));
	lan_discovery_fsm_init(&lan->fsm, (uint64_t)randombytes_random() << 32 | randombytes_random());
	uv_timer_init(options->loop, &lan->deadline);
	uv_timer_init(options->loop, &lan->look);
	lan->n_open = 2;
	for (int family = 0; family < N_FAMILIES; family++) {
		start_socket(lan, options->loop, &lan->group[family], family, LAN_DISCOVERY_PORT);
		start_socket(lan, options->loop, &lan->own[family], family, 0);
	}
	join_all(lan);
	(void)places_changed(lan);
	lan_discovery_set_connected(lan, false);
	return lan;
}

static void on_part_closed(struct lan_discovery *lan)
{
	if (--lan->n_open > 0)
		return;
	void (*closed)(void *) = lan->closed;
	void *owner = lan->closed_owner;
	free_peers(lan->peers, lan->n_peers);
	secret_key_wipe(&lan->node_key);
	secret_key_wipe(&lan->session_secret);
	free(lan);
	closed(owner);
}

static void on_socket_closed(uv_handle_t *handle)
{
	struct lan_socket *socket = container_of((uv_poll_t *)handle, struct lan_socket, poll);

	close(socket->fd);
	on_part_closed(socket->lan);
}

static void on_deadline_closed(uv_handle_t *handle)
{
	on_part_closed(container_of((uv_timer_t *)handle, struct lan_discovery, deadline));
}

static void on_look_closed(uv_handle_t *handle)
{
	on_part_closed(container_of((uv_timer_t *)handle, struct lan_discovery, look));
}

void lan_discovery_close(struct lan_discovery *lan, void (*closed)(void *owner), void *owner)
{
	if (!lan) {
		closed(owner);
		return;
	}
	lan->closed = closed;
	lan->closed_owner = owner;
	for (int family = 0; family < N_FAMILIES; family++) {
		if (lan->group[family].fd >= 0)
			uv_close((uv_handle_t *)&lan->group[family].poll, on_socket_closed);
		if (lan->own[family].fd >= 0)
			uv_close((uv_handle_t *)&lan->own[family].poll, on_socket_closed);
	}
	uv_close((uv_handle_t *)&lan->deadline, on_deadline_closed);
	uv_close((uv_handle_t *)&lan->look, on_look_closed);
}
