#include "node/wireguard/udp.h"

#include <assert.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "node/wireguard/link.h"
#include "node/wireguard/udp_steering.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* Ten milliseconds of 5 Gb/s. */
#define ECN_MASK      0x03 /* of the DS field */
#define SOCKET_BUFFER (7 << 20)
#define PORT_ATTEMPTS 32

static uint32_t coarse_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint32_t)now.tv_sec;
}

/* opening */

static int set_option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

/* What makes things better, but is not everywhere. */
static void prefer_option(int fd, int level, int name, int value)
{
	(void)set_option(fd, level, name, value);
}

static void set_buffers(int fd)
{
	if (set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER) != 0)
		prefer_option(fd, SOL_SOCKET, SO_RCVBUF, SOCKET_BUFFER);
	if (set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, SOCKET_BUFFER) != 0)
		prefer_option(fd, SOL_SOCKET, SO_SNDBUF, SOCKET_BUFFER);
}

/* Before Linux 5.12 the option cannot be read back, and joins what it should not. */
static bool kernel_joins_datagrams(void)
{
	unsigned major = 0, minor = 0;
	struct utsname name;

	return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
	       (major > 5 || (major == 5 && minor >= 12));
}

static void ask_for_trains(int fd, struct offloads *offloads)
{
	int r = kernel_joins_datagrams() ? set_option(fd, IPPROTO_UDP, UDP_GRO, 1) : -ENOPROTOOPT;

	offloads_set_error(offloads, OFFLOAD_UDP_GRO, -r);
}

static int configure_socket(int fd, enum udp_family family, const struct udp_options *options)
{
	int r = options->fwmark ? set_option(fd, SOL_SOCKET, SO_MARK, (int)options->fwmark) : 0;

	if (r == 0 && family == UDP_V6)
		r = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (r != 0)
		return r;

	if (family == UDP_V4) {
		prefer_option(fd, IPPROTO_IP, IP_PKTINFO, 1);
		prefer_option(fd, IPPROTO_IP, IP_RECVTOS, 1);
		prefer_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
	} else {
		prefer_option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
		prefer_option(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
		prefer_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
	}
	prefer_option(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
	set_buffers(fd);
	if (offloads_want(options->offloads, OFFLOAD_UDP_GRO))
		ask_for_trains(fd, options->offloads);
	return 0;
}

static int bind_socket(int fd, enum udp_family family, uint16_t port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int r = family == UDP_V4 ? bind(fd, (const void *)&v4, sizeof(v4)) :
				   bind(fd, (const void *)&v6, sizeof(v6));

	return r == 0 ? 0 : -errno;
}

static uint16_t bound_port(int fd)
{
	struct sockaddr_in6 name = { 0 };
	socklen_t len = sizeof(name);

	/* The port is at the same place in both families. */
	return getsockname(fd, (void *)&name, &len) == 0 ? ntohs(name.sin6_port) : 0;
}

/* A socket of this family on this port, which it may share; *ret_fd is -1 when the machine does not have the family. */
static int open_socket(enum udp_family family, uint16_t port, bool joins, const struct udp_options *options,
		       int *ret_fd)
{
	int fd = socket(family == UDP_V4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	*ret_fd = -1;
	if (fd < 0)
		return errno == EAFNOSUPPORT ? 0 : -errno;
	int r = configure_socket(fd, family, options);
	if (r == 0 && joins)
		r = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (r == 0)
		r = bind_socket(fd, family, port);
	if (r == 0) {
		*ret_fd = fd;
		return 0;
	}
	close(fd);
	/* IPv6 switched off (net.ipv6.conf.all.disable_ipv6) shows only here. */
	return family == UDP_V6 && r == -EADDRNOTAVAIL ? 0 : r;
}

/* The sockets of all shards: [shard][family]. */
typedef int shard_fds[UDP_N_FAMILIES];

static void close_all(shard_fds *fds, uint32_t n_shards)
{
	for (uint32_t shard = 0; shard < n_shards; shard++) {
		for (int family = 0; family < UDP_N_FAMILIES; family++) {
			if (fds[shard][family] >= 0)
				close(fds[shard][family]);
			fds[shard][family] = -1;
		}
	}
}

/*
 * One family's sockets of all shards. The first is bound alone, so that a port which anybody has is
 * told as taken, even by another sharded socket of ours, and only then opened for others. From then
 * on the kernel lets programs of the same user join (and only those: it compares the uid), which for
 * a data plane that needs CAP_NET_ADMIN is root. One that joined would receive nothing: the steering
 * program never chooses a socket after the n_shards first ones.
 */
static int open_shards(enum udp_family family, uint16_t port, const struct udp_options *options,
		       shard_fds *fds)
{
	int first, r = open_socket(family, port, false, options, &first);

	fds[0][family] = first;
	if (r != 0 || first < 0 || options->n_shards <= 1)
		return r;
	r = set_option(first, SOL_SOCKET, SO_REUSEPORT, 1);
	for (uint32_t shard = 1; r == 0 && shard < options->n_shards; shard++)
		r = open_socket(family, bound_port(first), true, options, &fds[shard][family]);
	return r == 0 ? udp_steering_attach(first, options->n_shards) : r;
}

/* Both families on one port. */
static int open_both(uint16_t port, const struct udp_options *options, shard_fds *fds)
{
	int r = open_shards(UDP_V4, port, options, fds);

	if (r == 0) {
		uint16_t same = port == 0 && fds[0][UDP_V4] >= 0 ? bound_port(fds[0][UDP_V4]) : port;
		r = open_shards(UDP_V6, same, options, fds);
	}
	if (r == 0 && fds[0][UDP_V4] < 0 && fds[0][UDP_V6] < 0)
		r = -EAFNOSUPPORT;
	if (r != 0)
		close_all(fds, UDP_MAX_SHARDS);
	return r;
}

static int open_any_port(const struct udp_options *options, shard_fds *fds)
{
	int r = -EADDRINUSE;

	/* The port that IPv4 was given may be taken in IPv6. */
	for (int i = 0; i < PORT_ATTEMPTS && r == -EADDRINUSE; i++)
		r = open_both(0, options, fds);
	return r;
}

/* Does the kernel know UDP_SEGMENT at all? Whether a path takes it shows only when sending. */
static bool probe_segmentation(const struct udp *udp)
{
	int fd = udp->fds[0][UDP_V4] >= 0 ? udp->fds[0][UDP_V4] : udp->fds[0][UDP_V6];

	if (!offloads_want(udp->offloads, OFFLOAD_UDP_GSO))
		return false;
	int r = set_option(fd, IPPROTO_UDP, UDP_SEGMENT, 0);
	offloads_set_error(udp->offloads, OFFLOAD_UDP_GSO, -r);
	return r == 0;
}

/* Is the kernel asked to join datagrams? */
static bool is_joining(const struct udp *udp)
{
	int fd = udp->fds[0][UDP_V4] >= 0 ? udp->fds[0][UDP_V4] : udp->fds[0][UDP_V6], value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, IPPROTO_UDP, UDP_GRO, &value, &len) == 0 && value != 0;
}

static struct udp *new_udp(const struct udp_options *options)
{
	struct udp *udp = calloc(1, sizeof(*udp));

	if (!udp)
		abort();
	udp->n_shards = options->n_shards > 1 ? options->n_shards : 1;
	for (int shard = 0; shard < UDP_MAX_SHARDS; shard++)
		for (int family = 0; family < UDP_N_FAMILIES; family++)
			udp->fds[shard][family] = -1;
	udp->offloads = options->offloads;
	return udp;
}

int udp_open(const struct udp_options *options, struct udp **ret, struct error *reterr)
{
	struct udp *udp = new_udp(options);
	int r = -EADDRINUSE;

	assert(options->n_shards <= UDP_MAX_SHARDS);
	if (options->port != 0)
		r = open_both(options->port, options, udp->fds);
	if (r == -EADDRINUSE && (options->port == 0 || options->any_port_if_taken))
		r = open_any_port(options, udp->fds);
	if (r != 0) {
		udp_free(udp);
		return error_set(reterr, r, "cannot open UDP port %u: %s", options->port, strerror(-r));
	}
	udp->may_segment = probe_segmentation(udp);
	udp->joins = is_joining(udp);
	udp->port = bound_port(udp->fds[0][UDP_V4] >= 0 ? udp->fds[0][UDP_V4] : udp->fds[0][UDP_V6]);
	*ret = udp;
	return 0;
}

void udp_free(struct udp *udp)
{
	if (!udp)
		return;
	close_all(udp->fds, udp->n_shards);
	free(udp);
}

int udp_set_mark(struct udp *udp, uint32_t fwmark, struct error *reterr)
{
	for (uint32_t i = 0; i < udp->n_shards * UDP_N_FAMILIES; i++) {
		int fd = udp->fds[i / UDP_N_FAMILIES][i % UDP_N_FAMILIES];
		int r = fd >= 0 ? set_option(fd, SOL_SOCKET, SO_MARK, (int)fwmark) : 0;
		if (r != 0)
			return error_set(reterr, r, "cannot set fwmark %u: %s", fwmark, strerror(-r));
	}
	return 0;
}

/* Another interface has it: as good on each. */
static bool is_of_another(int family, const void *ip, uint32_t ifindex)
{
	uint32_t owner = 0;

	return link_find_address(family, ip, &owner) == 0 && owner != ifindex;
}

void udp_fit_source(const struct udp *udp, struct wg_path *path)
{
	const bool is_v4 = endpoint_is_v4(&path->remote);
	const int family = is_v4 ? AF_INET : AF_INET6, fd = udp_fd(udp, 0, is_v4 ? UDP_V4 : UDP_V6);
	const size_t skip = is_v4 ? 12 : 0; /* of v4-mapped addresses */
	struct link_way way;
	socklen_t len = sizeof(int);
	int mark = 0;

	if (path->remote.scope_id != 0 || path->ifindex == 0)
		return; /* on the link, and never elsewhere */
	if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_MARK, &mark, &len) != 0)
		return;
	if (link_find_way(family, path->local_ip + skip, path->remote.ip + skip, (uint32_t)mark, &way) != 0 ||
	    way.ifindex == path->ifindex)
		return;
	const bool keeps_address =
		way.ifindex != 0 && (way.is_here || is_of_another(family, path->local_ip + skip, path->ifindex));
	path->ifindex = 0;
	if (!keeps_address)
		memset(path->local_ip, 0, sizeof(path->local_ip));
}

void udp_routes_changed(struct udp *udp)
{
	refused_paths_forget(&udp->refused);
}

/* sending */

/* A message being put together. */
struct outgoing {
	struct msghdr header;
	struct sockaddr_storage name;
	struct iovec pieces[2 * TRAIN_MAX];
	struct udp_control control;
	size_t control_len;
};

static void add_control(struct outgoing *out, int level, int type, const void *value, size_t len)
{
	struct cmsghdr *control = (struct cmsghdr *)(void *)(out->control.bytes + out->control_len);

	assert(out->control_len + CMSG_SPACE(len) <= sizeof(out->control.bytes));
	control->cmsg_level = level;
	control->cmsg_type = type;
	control->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(control), value, len);
	out->control_len += CMSG_SPACE(len);
}

static bool has_source(const struct wg_path *path)
{
	static const uint8_t none[16];

	return memcmp(path->local_ip, none, sizeof(none)) != 0;
}

static void add_source(struct outgoing *out, enum udp_family family, const struct wg_path *path)
{
	/*
	 * By its interface, too: when routes have just changed, nothing may leave by the new one from the old address.
	 * A NAT there would give our port to it, and another to what comes from the right one. IPv6 promises that of
	 * link-local remotes only; else a better route wins until the source is forgotten.
	 */
	if (family == UDP_V4) {
		struct in_pktinfo info = { .ipi_ifindex = (int)path->ifindex };
		memcpy(&info.ipi_spec_dst, path->local_ip + 12, 4);
		add_control(out, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	} else {
		const uint32_t scope = path->remote.scope_id;
		struct in6_pktinfo info = { .ipi6_ifindex = scope != 0 ? scope : path->ifindex };
		memcpy(&info.ipi6_addr, path->local_ip, 16);
		add_control(out, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	}
}

static void add_ds(struct outgoing *out, enum udp_family family, uint8_t ds)
{
	int value = ds;

	if (family == UDP_V4)
		add_control(out, IPPROTO_IP, IP_TOS, &value, sizeof(value));
	else
		add_control(out, IPPROTO_IPV6, IPV6_TCLASS, &value, sizeof(value));
}

static void add_piece(struct outgoing *out, const uint8_t *bytes, size_t len)
{
	out->pieces[out->header.msg_iovlen++] = (struct iovec){ (void *)(uintptr_t)bytes, len };
}

/* header: before each datagram, the same bytes; NULL: none. */
static void set_pieces(struct outgoing *out, const uint8_t *header, const struct train *train)
{
	out->header.msg_iov = out->pieces;
	out->header.msg_iovlen = 0;
	if (!header && train_is_contiguous(train)) {
		add_piece(out, train->base, (size_t)train_bytes(train));
		return;
	}
	for (uint32_t i = 0; i < train->n; i++) {
		if (header)
			add_piece(out, header, WG_RELAY_HEADER_LEN);
		add_piece(out, train_packet(train, i), train_size(train, i));
	}
}

struct sending {
	struct udp *udp;
	uint32_t shard;
	enum udp_family family;
	const struct wg_path *path;
	const uint8_t *header; /* as for set_pieces() */
	bool with_source;
};

/* What a packet is on the wire, above UDP. */
static uint32_t datagram_size(const struct sending *sending, uint32_t size)
{
	return sending->header ? WG_RELAY_HEADER_LEN + size : size;
}

/* One sendmsg(2): the whole train, which has one packet or may be segmented. 0 or -errno. */
static int send_message(const struct sending *sending, const struct train *train)
{
	/* A relay does not pass marks of congestion on: who cannot be told must not be marked instead of dropped. */
	const uint8_t ds = (uint8_t)(sending->header ? train->ds & ~ECN_MASK : train->ds);
	struct outgoing out;

	memset(&out.header, 0, sizeof(out.header));
	out.control_len = 0;
	memset(out.control.bytes, 0, sizeof(out.control.bytes));
	out.header.msg_name = &out.name;
	out.header.msg_namelen = endpoint_to_sockaddr(&sending->path->remote, &out.name);
	set_pieces(&out, sending->header, train);

	if (sending->with_source)
		add_source(&out, sending->family, sending->path);
	if (ds)
		add_ds(&out, sending->family, ds);
	if (train->n > 1)
		add_control(&out, IPPROTO_UDP, UDP_SEGMENT,
			    &(uint16_t){ (uint16_t)datagram_size(sending, train->size) }, sizeof(uint16_t));
	if (out.control_len > 0) {
		out.header.msg_control = out.control.bytes;
		out.header.msg_controllen = out.control_len;
	}

	ssize_t n;
	do
		n = sendmsg(udp_fd(sending->udp, sending->shard, sending->family), &out.header,
			    MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* The same; a source address that is no longer ours, or whose interface is gone, is left out from here on. */
static int send_with_source(struct sending *sending, const struct train *train)
{
	int r = send_message(sending, train);

	if (!sending->with_source || (r != -EINVAL && r != -ENETUNREACH && r != -EADDRNOTAVAIL && r != -ENODEV))
		return r;
	sending->with_source = false;
	int again = send_message(sending, train);
	if (again == 0)
		sending->udp->counters.n_source_gone++;
	else if (r == -EINVAL)
		sending->with_source = true; /* it was not the source that was refused */
	return again;
}

static int send_singly(struct sending *sending, const struct train *train, uint32_t *sent)
{
	for (uint32_t i = 0; i < train->n; i++) {
		struct train one = train_slice(train, i, 1);
		int r = send_with_source(sending, &one);
		if (r != 0)
			return r;
		++*sent;
	}
	return 0;
}

static bool may_segment(struct udp *udp, const struct endpoint *remote, uint32_t size)
{
	if (!udp->may_segment || size == 0)
		return false;
	return size <= refused_paths_limit(&udp->refused, remote, coarse_seconds());
}

/*
 * UDP_SEGMENT was refused. EIO: this route cannot do it at all (no checksum offload, or IPsec).
 * EINVAL and EMSGSIZE: a datagram and its headers exceed the path's MTU; smaller ones go.
 */
static void limit_segmentation(const struct sending *sending, int error, uint32_t size)
{
	struct udp *udp = sending->udp;

	offloads_refused(udp->offloads, OFFLOAD_UDP_GSO);
	refused_paths_note(&udp->refused, &sending->path->remote, error == -EIO ? 0 : size - 1,
			   coarse_seconds());
}

/* The datagrams leave one by one, from the first that has not been sent. */
static int fall_back(struct sending *sending, const struct train *train, uint32_t *sent)
{
	if (train->n > 1)
		offloads_fell_back(sending->udp->offloads, OFFLOAD_UDP_GSO);
	return send_singly(sending, train, sent);
}

static int send_part(struct sending *sending, const struct train *train, uint32_t *sent)
{
	const uint32_t size = datagram_size(sending, train->size);

	if (train->n == 1 || !may_segment(sending->udp, &sending->path->remote, size))
		return fall_back(sending, train, sent);

	int r = send_with_source(sending, train);
	if (r == 0) {
		*sent += train->n;
		offloads_used(sending->udp->offloads, OFFLOAD_UDP_GSO);
		return 0;
	}
	if (r != -EIO && r != -EINVAL && r != -EMSGSIZE)
		return r;
	uint32_t before = *sent;
	int singly = fall_back(sending, train, sent);
	if (*sent > before) /* otherwise it was not the segmentation that was refused */
		limit_segmentation(sending, r, size);
	return singly;
}

/* How many packets from `first` may go with one UDP_SEGMENT. */
static uint32_t part_len(const struct sending *sending, const struct train *train, uint32_t first)
{
	const uint32_t size = datagram_size(sending, train->size);
	uint32_t n = size ? UDP_TRAIN_MAX_BYTES / size : 1;

	if (n > UDP_TRAIN_MAX)
		n = UDP_TRAIN_MAX;
	if (n == 0)
		n = 1; /* too big for any datagram: the kernel shall say so */
	return n < train->n - first ? n : train->n - first;
}

int udp_send(struct udp *udp, uint32_t shard, const struct wg_path *path, const struct train *train,
	     uint32_t *ret_sent)
{
	struct sending sending = {
		.udp = udp,
		.shard = shard,
		.family = endpoint_is_v4(&path->remote) ? UDP_V4 : UDP_V6,
		.path = path,
		.header = wg_path_is_udp_relayed(path) ? path->relay_header : NULL,
		.with_source = has_source(path),
	};
	uint32_t sent = 0;
	int r = udp_fd(udp, shard, sending.family) < 0 ? -EAFNOSUPPORT : 0;

	while (r == 0 && sent < train->n) {
		struct train part = train_slice(train, sent, part_len(&sending, train, sent));
		r = send_part(&sending, &part, &sent);
	}
	if (r != 0 && r != -EAGAIN)
		udp->counters.n_lost += train->n - sent;
	if (ret_sent)
		*ret_sent = sent;
	return r;
}

static int set_fragments(int fd, enum udp_family family, bool never)
{
	if (family == UDP_V4)
		return set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, never ? IP_PMTUDISC_PROBE : IP_PMTUDISC_DONT);
	return set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, never ? IPV6_PMTUDISC_PROBE : IPV6_PMTUDISC_DONT);
}

int udp_send_whole(struct udp *udp, const struct endpoint *remote, const uint8_t *bytes, size_t len)
{
	const enum udp_family family = endpoint_is_v4(remote) ? UDP_V4 : UDP_V6;
	const int fd = udp_fd(udp, 0, family);
	struct sockaddr_storage name;
	int r;

	if (fd < 0)
		return -EAFNOSUPPORT;
	const socklen_t name_len = (socklen_t)endpoint_to_sockaddr(remote, &name);
	if ((r = set_fragments(fd, family, true)) != 0)
		return r;
	ssize_t n;
	do
		n = sendto(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&name, name_len);
	while (n < 0 && errno == EINTR);
	r = n < 0 ? -errno : 0;
	(void)set_fragments(fd, family, false);
	return r;
}

uint32_t udp_first_mtu(const struct endpoint *remote)
{
	const bool is_v4 = endpoint_is_v4(remote);
	struct sockaddr_storage name;
	const socklen_t name_len = (socklen_t)endpoint_to_sockaddr(remote, &name);
	int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0), mtu = 0;
	socklen_t len = sizeof(mtu);

	if (fd < 0)
		return 0;
	if (connect(fd, (const struct sockaddr *)&name, name_len) != 0 ||
	    getsockopt(fd, is_v4 ? IPPROTO_IP : IPPROTO_IPV6, is_v4 ? IP_MTU : IPV6_MTU, &mtu, &len) != 0)
		mtu = 0;
	close(fd);
	return mtu > 0 ? (uint32_t)mtu : 0;
}

/* receiving */

static void prepare_inbox(struct udp_inbox *inbox)
{
	for (int i = 0; i < UDP_INBOX_MESSAGES; i++) {
		inbox->pieces[i] =
			(struct iovec){ inbox->buffers[i] + UDP_INBOX_HEADROOM, UDP_MESSAGE_MAX };
		inbox->headers[i].msg_hdr = (struct msghdr){
			.msg_name = &inbox->names[i],
			.msg_namelen = sizeof(inbox->names[i]),
			.msg_iov = &inbox->pieces[i],
			.msg_iovlen = 1,
			.msg_control = inbox->controls[i].bytes,
			.msg_controllen = sizeof(inbox->controls[i].bytes),
		};
	}
}

static void set_local_v4(struct wg_path *path, const struct in_pktinfo *info)
{
	memset(path->local_ip + 10, 0xff, 2);
	memcpy(path->local_ip + 12, &info->ipi_spec_dst, 4);
	path->ifindex = (uint32_t)info->ipi_ifindex;
}

static void set_local_v6(struct wg_path *path, const struct in6_pktinfo *info)
{
	memcpy(path->local_ip, &info->ipi6_addr, 16);
	path->ifindex = info->ipi6_ifindex;
}

/* The kernel counts per socket, since its beginning and modulo 2^32; only its reader comes here. */
static void note_drops(struct udp *udp, _Atomic uint32_t *before, uint32_t now)
{
	udp->counters.n_kernel_drops += now - atomic_exchange(before, now);
}

static void read_control(const struct cmsghdr *control, struct udp_message *message, uint32_t *ret_drops)
{
	const void *data = CMSG_DATA(control);
	int number = 0;

	if (control->cmsg_len >= CMSG_LEN(sizeof(number)))
		memcpy(&number, data, sizeof(number));
	if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO && number > 0)
		message->datagram_len = (uint32_t)number;
	else if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO)
		set_local_v4(&message->from, data);
	else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO)
		set_local_v6(&message->from, data);
	else if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_TOS)
		message->ds = *(const uint8_t *)data; /* one byte, unlike when sent */
	else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_TCLASS)
		message->ds = (uint8_t)number;
	else if (control->cmsg_level == SOL_SOCKET && control->cmsg_type == SO_RXQ_OVFL)
		*ret_drops = (uint32_t)number;
}

static void read_message(struct udp *udp, _Atomic uint32_t *drops, struct udp_inbox *inbox, int i)
{
	struct msghdr *header = &inbox->headers[i].msg_hdr;
	struct udp_message *message = &inbox->messages[i];

	*message = (struct udp_message){
		.from.remote = endpoint_from_sockaddr((const void *)&inbox->names[i]),
		.at = inbox->buffers[i] + UDP_INBOX_HEADROOM,
		.left = inbox->headers[i].msg_len,
		.datagram_len = inbox->headers[i].msg_len,
	};
	uint32_t n_drops = *drops;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c))
		read_control(c, message, &n_drops);
	if (n_drops != *drops)
		note_drops(udp, drops, n_drops);
	if (message->datagram_len < message->left)
		offloads_used(udp->offloads, OFFLOAD_UDP_GRO);
	if (header->msg_flags & MSG_TRUNC)
		udp->counters.n_truncated++;
}

/*
 * A kernel, or a network card's driver, that cannot do after all what it said it could. What waits in the
 * sockets joined comes as one long datagram now, which authenticates as nothing: lost, once.
 */
static void stop_joining(struct udp *udp, int error)
{
	offloads_refused(udp->offloads, OFFLOAD_UDP_GRO);
	if (!atomic_exchange(&udp->joins, false))
		return;
	for (uint32_t shard = 0; shard < udp->n_shards; shard++)
		for (unsigned family = 0; family < UDP_N_FAMILIES; family++)
			if (udp_fd(udp, shard, (enum udp_family)family) >= 0)
				prefer_option(udp_fd(udp, shard, (enum udp_family)family), IPPROTO_UDP, UDP_GRO, 0);
	offloads_set_error(udp->offloads, OFFLOAD_UDP_GRO, error);
	log_warning("wireguard", "UDP port %u: joined datagrams cannot be received: %s; one by one from now on",
		    udp->port, strerror(error));
}

static int receive_messages(struct udp *udp, int fd, struct udp_inbox *inbox)
{
	int n;

	do
		n = recvmmsg(fd, inbox->headers, UDP_INBOX_MESSAGES, MSG_DONTWAIT, NULL);
	while (n < 0 && errno == EINTR);
	if (n >= 0 || errno == EAGAIN)
		return n < 0 ? 0 : n;
	const int error = errno;
	if ((error == EIO || error == EINVAL) && atomic_load(&udp->joins))
		stop_joining(udp, error);
	return -error;
}

int udp_receive(struct udp *udp, uint32_t shard, enum udp_family family, struct udp_inbox *inbox)
{
	prepare_inbox(inbox);
	const int n = receive_messages(udp, udp_fd(udp, shard, family), inbox);
	for (int i = 0; i < n; i++)
		read_message(udp, &udp->kernel_drops[shard][family], inbox, i);
	return n;
}

bool udp_message_next(struct udp_message *message, struct train *ret)
{
	uint32_t size = message->datagram_len;

	if (message->left == 0 || size == 0)
		return false;
	uint32_t n = (message->left + size - 1) / size;
	if (n > TRAIN_MAX)
		n = TRAIN_MAX;
	uint32_t bytes = n * size < message->left ? n * size : message->left;

	*ret = (struct train){
		.base = message->at,
		.n = n,
		.stride = size,
		.size = n == 1 ? bytes : size,
		.last_size = bytes - (n - 1) * size,
		.ds = message->ds,
	};
	message->at += bytes;
	message->left -= bytes;
	return true;
}
