#include "node/wireguard/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "node/wireguard/device.h"
#include "node/wireguard/link.h"
#include "node/wireguard/tun_probe.h"
#include "node/wireguard/tun_steering.h"
#include "node/wireguard/udp.h"

/* Newer than Debian 12's headers (Linux 6.2). */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* Richest first: the kernel refuses what it does not know. */
static const unsigned offload_sets[] = {
	TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,
	TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
	0,
};

/* Packets that the widest way seals at once; a train that ends with a few more takes a whole turn for them. */
#define SEALED_AT_ONCE 16
#define FEW	       4
/* Larger packets fill a superpacket by their bytes. A limit would only cut up what has small ones. */
#define MIN_LIMIT 32
/* Superpackets in a row that may make no sense before the kernel is believed to be broken. */
#define MAX_MALFORMED 16
/* What the kernel refused to take merged is tried again after so long. */
#define MERGE_RETRY_S 60

static uint32_t coarse_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint32_t)now.tv_sec;
}

static void choose_reads(const struct tun *tun)
{
	bool wanted = tun->has_header && offloads_want(tun->offloads, OFFLOAD_TUN_GSO_READ);
	int error = 0;

	for (size_t i = wanted ? 0 : ARRAY_LEN(offload_sets) - 1; i < ARRAY_LEN(offload_sets); i++) {
		if (ioctl(tun->fd, TUNSETOFFLOAD, offload_sets[i]) == 0) {
			error = offload_sets[i] ? 0 : error;
			break;
		}
		error = errno;
	}
	if (wanted)
		offloads_set_error(tun->offloads, OFFLOAD_TUN_GSO_READ, error);
}

static int write_pieces(const struct tun *tun, const struct offload_run *run)
{
	const int skip = tun->has_header ? 0 : 1;
	ssize_t n;

	do
		n = writev(tun->fd, run->pieces + skip, run->n_pieces - skip);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* 0 or -errno: does the kernel take these two packets as one? Every header is looked at before EIO is given. */
static int probe_merge(const struct tun *tun, bool is_v4, bool is_tcp)
{
	uint8_t bytes[TUN_PROBE_LEN];
	struct offload_run run;
	const struct train two = tun_probe_packets(is_v4, is_tcp, bytes);

	if (offload_merge(&two, 0, OFFLOAD_MERGE_TCP | OFFLOAD_MERGE_UDP, &run) != 2)
		return -EPROTO;
	int r = write_pieces(tun, &run);
	return r == -EIO ? 0 : r;
}

static unsigned probe_kind(const struct tun *tun, bool is_tcp, int *error)
{
	int r = probe_merge(tun, true, is_tcp);

	if (r == 0)
		r = probe_merge(tun, false, is_tcp);
	if (r != 0)
		*error = -r;
	return r != 0 ? 0 : is_tcp ? OFFLOAD_MERGE_TCP : OFFLOAD_MERGE_UDP;
}

static void choose_writes(struct tun *tun)
{
	int error = 0;

	tun->merge = 0;
	if (!tun->has_header || !offloads_want(tun->offloads, OFFLOAD_TUN_GRO_WRITE))
		return;
	/* UDP last: a kernel before 6.2 does not know it, which is no reason to call the whole refused. */
	tun->merge = probe_kind(tun, true, &error);
	offloads_set_error(tun->offloads, OFFLOAD_TUN_GRO_WRITE, error);
	tun->merge |= probe_kind(tun, false, &error);
	log_debug("wireguard", "interface %s takes merged %s", tun->name,
		  tun->merge == 0		  ? "nothing" :
		  tun->merge & OFFLOAD_MERGE_UDP ? "TCP and UDP" :
						   "TCP");
}

static int set_name(const char *name, struct ifreq *request, struct error *reterr)
{
	if (strlen(name) == 0 || strlen(name) >= IFNAMSIZ)
		return error_set(reterr, -EINVAL, "interface name '%s' must have 1 to %d characters", name,
				 IFNAMSIZ - 1);
	memset(request, 0, sizeof(*request));
	memcpy(request->ifr_name, name, strlen(name));
	return 0;
}

static int open_device(struct error *reterr)
{
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	return fd >= 0 ? fd : error_set(reterr, -errno, "/dev/net/tun: %s", strerror(errno));
}

/* Without any offload there is no header either: there are kernels that have trouble with it. */
static int flags_of(const struct tun *tun)
{
	return IFF_TUN | IFF_NO_PI | (tun->has_header ? IFF_VNET_HDR : 0);
}

/*
 * A new interface that takes several queues. Exclusively, because the kernel lets any program add a
 * queue to an interface that has several: two daemons would share one without a word.
 */
static int create_with_queues(struct tun *tun, struct ifreq *request)
{
	int program_fd = tun_steering_load();
	if (program_fd < 0)
		return program_fd;

	request->ifr_flags = (short)(flags_of(tun) | IFF_MULTI_QUEUE | IFF_TUN_EXCL);
	int r = ioctl(tun->fd, TUNSETIFF, request) == 0 ? 0 : -errno;
	if (r == 0)
		tun->may_add_queues = tun_steering_attach(tun->fd, program_fd) == 0;
	close(program_fd);
	return r;
}

static int attach(const char *name, bool several_queues, struct tun *tun, struct link_info *ret_link,
		  struct error *reterr)
{
	struct ifreq request;
	int r = set_name(name, &request, reterr);

	if (r != 0)
		return r;
	/* Refused when it exists or the kernel cannot do it: one queue, as if not asked for more. */
	if (!several_queues || create_with_queues(tun, &request) != 0) {
		request.ifr_flags = (short)flags_of(tun);
		r = ioctl(tun->fd, TUNSETIFF, &request) == 0 ? 0 : -errno;
	}
	if (r != 0)
		return error_set(reterr, r, "cannot create interface %s: %s%s", name, strerror(-r),
				 r == -EPERM ? " (CAP_NET_ADMIN is needed)" :
				 r == -EBUSY ? " (another program has it)" :
				 r == -EINVAL ? " (another program has it, or it is no such TUN)" :
						"");
	r = link_find(request.ifr_name, ret_link, reterr);
	if (r != 0)
		return r;
	tun->ifindex = ret_link->ifindex;
	memcpy(tun->name, ret_link->name, sizeof(tun->name));
	return 0;
}

uint32_t tun_max_segments(uint32_t mtu)
{
	uint32_t n = UDP_TRAIN_MAX_BYTES / wg_slot_size(mtu, mtu);

	if (n > UDP_TRAIN_MAX || n < MIN_LIMIT)
		return UDP_TRAIN_MAX;
	return n % SEALED_AT_ONCE < FEW ? n - n % SEALED_AT_ONCE : n;
}

void tun_fit_superpackets(int ifindex, uint32_t mtu)
{
	struct error error;

	if (link_set_max_segments(ifindex, tun_max_segments(mtu), &error) != 0)
		log_debug("wireguard", "%s", error.message); /* only slower */
}

int tun_open(const char *name, const struct tun_options *options, struct tun *ret, struct error *reterr)
{
	struct tun tun = TUN_NONE;
	struct link_info link;

	tun.offloads = options->offloads;
	tun.has_header = offloads_want(tun.offloads, OFFLOAD_TUN_GSO_READ) ||
			 offloads_want(tun.offloads, OFFLOAD_TUN_GRO_WRITE);
	tun.fd = open_device(reterr);
	if (tun.fd < 0)
		return tun.fd;
	int r = attach(name, options->several_queues, &tun, &link, reterr);
	if (r != 0) {
		close(tun.fd);
		return r;
	}
	choose_reads(&tun);
	choose_writes(&tun);
	tun_fit_superpackets(tun.ifindex, link.mtu);
	*ret = tun;
	return 0;
}

int tun_add_queue(const struct tun *first, struct tun *ret, struct error *reterr)
{
	struct tun queue = *first;
	struct ifreq request;
	int r = set_name(first->name, &request, reterr);

	if (r != 0)
		return r;
	if (!first->may_add_queues)
		return error_set(reterr, -EOPNOTSUPP, "interface %s has one queue only", first->name);
	queue.n_refused = queue.n_malformed = queue.merge_refused = 0;
	queue.fd = open_device(reterr);
	if (queue.fd < 0)
		return queue.fd;
	request.ifr_flags = (short)(flags_of(first) | IFF_MULTI_QUEUE);
	if (ioctl(queue.fd, TUNSETIFF, &request) != 0) {
		r = errno == E2BIG ? -EBUSY : -errno;
		close(queue.fd);
		return error_set(reterr, r, "interface %s: cannot add a queue: %s", first->name,
				 strerror(-r));
	}
	*ret = queue;
	return 0;
}

int tun_open_queues(const char *name, struct offloads *offloads, unsigned n, struct tun *ret,
		    unsigned *ret_n, struct error *reterr)
{
	const struct tun_options options = { .several_queues = n > 1, .offloads = offloads };
	struct error ignored;
	unsigned n_open = 0;
	int r = tun_open(name, &options, &ret[0], reterr);

	if (r != 0)
		return r;
	for (n_open = 1; n_open < n && ret[0].may_add_queues; n_open++)
		if (tun_add_queue(&ret[0], &ret[n_open], &ignored) != 0)
			break;
	if (n_open < n)
		log_info("wireguard", "interface %s has %u of %u queues: flows share them", ret->name,
			 n_open, n);
	*ret_n = n_open;
	return 0;
}

void tun_close(struct tun *tun)
{
	if (tun->fd >= 0)
		close(tun->fd);
	tun->fd = -1;
}

bool tun_is_alive(const struct tun *tun)
{
	struct ifreq request = { 0 };

	return tun->fd >= 0 && (ioctl(tun->fd, TUNGETIFF, &request) == 0 || errno != EBADFD);
}

int tun_name(struct tun *tun)
{
	struct ifreq request = { 0 };

	if (ioctl(tun->fd, TUNGETIFF, &request) != 0)
		return -errno;
	memcpy(tun->name, request.ifr_name, sizeof(tun->name));
	return 0;
}

/* reading */

ssize_t tun_read(const struct tun *tun, struct offload_header *ret_header, uint8_t *buffer, size_t size)
{
	struct iovec parts[] = { { ret_header, sizeof(*ret_header) }, { buffer, size } };
	const int skip = tun->has_header ? 0 : 1;
	const ssize_t header_len = tun->has_header ? (ssize_t)sizeof(*ret_header) : 0;

	if (skip)
		memset(ret_header, 0, sizeof(*ret_header));
	ssize_t n = readv(tun->fd, parts + skip, (int)ARRAY_LEN(parts) - skip);
	if (n < 0)
		return -errno;
	return n < header_len ? -EIO : n - header_len;
}

void tun_read_made_sense(struct tun *tun, bool sense)
{
	if (sense) {
		tun->n_malformed = 0;
		offloads_used(tun->offloads, OFFLOAD_TUN_GSO_READ);
		return;
	}
	offloads_refused(tun->offloads, OFFLOAD_TUN_GSO_READ);
	if (++tun->n_malformed != MAX_MALFORMED)
		return;
	log_warning("wireguard", "interface %s gives malformed superpackets: none from now on", tun->name);
	(void)!ioctl(tun->fd, TUNSETOFFLOAD, 0);
	offloads_set_error(tun->offloads, OFFLOAD_TUN_GSO_READ, EPROTO);
}

/* writing */

/* What may be merged now. */
static unsigned merge_kinds(struct tun *tun)
{
	if (tun->merge_refused && (int32_t)(coarse_seconds() - tun->merge_retry_s) >= 0) {
		tun->merge_refused = 0;
		offloads_set_error(tun->offloads, OFFLOAD_TUN_GRO_WRITE, 0);
	}
	return tun->merge & ~tun->merge_refused;
}

static void refuse_merge(struct tun *tun, uint8_t gso_type, int error)
{
	bool is_udp = gso_type == OFFLOAD_GSO_UDP;

	tun->merge_refused |= is_udp ? OFFLOAD_MERGE_UDP : OFFLOAD_MERGE_TCP;
	tun->merge_retry_s = coarse_seconds() + MERGE_RETRY_S;
	offloads_set_error(tun->offloads, OFFLOAD_TUN_GRO_WRITE, error);
	log_warning("wireguard", "interface %s refuses merged %s packets: %s", tun->name,
		    is_udp ? "UDP" : "TCP", strerror(error));
}

/* -EBADFD, or 0 with the number of packets taken. */
static int write_singly(struct tun *tun, const struct train *packets, uint32_t *ret_taken)
{
	struct offload_run run;

	*ret_taken = 0;
	for (uint32_t i = 0; i < packets->n; i++) {
		(void)offload_merge(packets, i, 0, &run);
		int r = write_pieces(tun, &run);
		if (r == -EBADFD)
			return r;
		*ret_taken += r == 0;
	}
	tun->n_refused += packets->n - *ret_taken;
	return 0;
}

/* The kernel has refused the packets as one. */
static int write_again(struct tun *tun, const struct train *packets, const struct offload_run *run, int error)
{
	uint32_t n_taken;

	offloads_refused(tun->offloads, OFFLOAD_TUN_GRO_WRITE);
	offloads_fell_back(tun->offloads, OFFLOAD_TUN_GRO_WRITE);
	offload_undo_merge(run);
	int r = write_singly(tun, packets, &n_taken);
	/* Otherwise it was the packets that it did not like, whoever sent them. */
	if (r == 0 && n_taken == packets->n)
		refuse_merge(tun, run->header.gso_type, error);
	return r;
}

static int write_run(struct tun *tun, const struct train *packets, const struct offload_run *run)
{
	int r = write_pieces(tun, run);

	if (r == -EBADFD)
		return r;
	if (r == -EINVAL && packets->n > 1)
		return write_again(tun, packets, run, -r);
	if (r != 0)
		tun->n_refused += packets->n;
	else if (packets->n > 1)
		offloads_used(tun->offloads, OFFLOAD_TUN_GRO_WRITE);
	return 0;
}

int tun_write(struct tun *tun, const struct train *packets)
{
	unsigned kinds = merge_kinds(tun);
	struct offload_run run;

	if (kinds == 0 && packets->n > 1)
		offloads_fell_back(tun->offloads, OFFLOAD_TUN_GRO_WRITE);
	for (uint32_t i = 0; i < packets->n;) {
		uint32_t n = offload_merge(packets, i, kinds, &run);
		const struct train part = train_slice(packets, i, n);
		int r = write_run(tun, &part, &run);
		if (r != 0)
			return r;
		i += n;
	}
	return 0;
}
