#include "node/wireguard/tun.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/log.h"
#include "node/wireguard/link.h"
#include "node/wireguard/tun_steering.h"

/* Newer than Debian 12's headers (Linux 6.2). */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* Richest first: the kernel refuses what it does not know. */
static const unsigned offload_sets[] = {
	TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,
	TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,
	TUN_F_CSUM,
	0,
};

/*
 * As many sealed packets of the default MTU as one UDP_SEGMENT takes (65507 / 1452): a superpacket
 * then leaves as one train, and arrives as one, instead of one and a stump.
 */
#define MAX_SEGMENTS 45

static void choose_offloads(struct tun *tun)
{
	unsigned set = 0;

	for (size_t i = 0; i < ARRAY_LEN(offload_sets); i++) {
		set = offload_sets[i];
		if (ioctl(tun->fd, TUNSETOFFLOAD, set) == 0)
			break;
	}
	/* Taking superpackets needs no bit, but a kernel that cuts them knows how to take them. */
	tun->merge = set & TUN_F_TSO4 ? OFFLOAD_MERGE_TCP : 0u;
	tun->merge |= set & TUN_F_USO4 ? OFFLOAD_MERGE_UDP : 0u;
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

/*
 * A new interface that takes several queues. Exclusively, because the kernel lets any program add a
 * queue to an interface that has several: two daemons would share one without a word.
 */
static int create_with_queues(struct tun *tun, struct ifreq *request)
{
	int program_fd = tun_steering_load();
	if (program_fd < 0)
		return program_fd;

	request->ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
	request->ifr_flags = (short)(request->ifr_flags | (short)IFF_TUN_EXCL);
	int r = ioctl(tun->fd, TUNSETIFF, request) == 0 ? 0 : -errno;
	if (r == 0)
		tun->may_add_queues = tun_steering_attach(tun->fd, program_fd) == 0;
	close(program_fd);
	return r;
}

static int attach(const char *name, bool several_queues, struct tun *tun, struct error *reterr)
{
	struct ifreq request;
	struct link_info link;
	int r = set_name(name, &request, reterr);

	if (r != 0)
		return r;
	/* Refused when it exists or the kernel cannot do it: one queue, as if not asked for more. */
	if (!several_queues || create_with_queues(tun, &request) != 0) {
		request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
		r = ioctl(tun->fd, TUNSETIFF, &request) == 0 ? 0 : -errno;
	}
	if (r != 0)
		return error_set(reterr, r, "cannot create interface %s: %s%s", name, strerror(-r),
				 r == -EPERM ? " (CAP_NET_ADMIN is needed)" :
				 r == -EBUSY ? " (another program has it)" :
				 r == -EINVAL ? " (another program has it, or it is no such TUN)" :
						"");
	r = link_find(request.ifr_name, &link, reterr);
	if (r != 0)
		return r;
	tun->ifindex = link.ifindex;
	memcpy(tun->name, link.name, sizeof(tun->name));
	return 0;
}

int tun_open(const char *name, const struct tun_options *options, struct tun *ret, struct error *reterr)
{
	struct tun tun = TUN_NONE;
	struct error ignored;

	tun.fd = open_device(reterr);
	if (tun.fd < 0)
		return tun.fd;
	int r = attach(name, options->several_queues, &tun, reterr);
	if (r != 0) {
		close(tun.fd);
		return r;
	}
	choose_offloads(&tun);
	r = link_set_max_segments(tun.ifindex, MAX_SEGMENTS, &ignored);
	if (r != 0)
		log_debug("wireguard", "%s", ignored.message); /* only slower */
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
	queue.n_refused = 0;
	queue.fd = open_device(reterr);
	if (queue.fd < 0)
		return queue.fd;
	request.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
	if (ioctl(queue.fd, TUNSETIFF, &request) != 0) {
		r = errno == E2BIG ? -EBUSY : -errno;
		close(queue.fd);
		return error_set(reterr, r, "interface %s: cannot add a queue: %s", first->name,
				 strerror(-r));
	}
	*ret = queue;
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

/* packets */

ssize_t tun_read(const struct tun *tun, struct offload_header *ret_header, uint8_t *buffer, size_t size)
{
	struct iovec parts[] = { { ret_header, sizeof(*ret_header) }, { buffer, size } };

	ssize_t n = readv(tun->fd, parts, ARRAY_LEN(parts));
	if (n < 0)
		return -errno;
	if ((size_t)n < sizeof(*ret_header))
		return -EIO;
	return n - (ssize_t)sizeof(*ret_header);
}

static int write_run(struct tun *tun, struct offload_run *run)
{
	ssize_t n;

	do
		n = writev(tun->fd, run->pieces, run->n_pieces);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return 0;
	if (errno == EBADFD)
		return -EBADFD;
	if (errno == EINVAL && run->header.gso_type != OFFLOAD_GSO_NONE)
		tun->merge &= run->header.gso_type == OFFLOAD_GSO_UDP ? ~OFFLOAD_MERGE_UDP :
									 ~OFFLOAD_MERGE_TCP;
	/* A run's packets are lost together; a refused kind is not merged again, so this happens once. */
	tun->n_refused++;
	return 0;
}

int tun_write(struct tun *tun, const struct train *packets)
{
	struct offload_run run;

	for (uint32_t i = 0; i < packets->n;) {
		uint32_t n = offload_merge(packets, i, tun->merge, &run);
		int r = write_run(tun, &run);
		if (r != 0)
			return r;
		i += n;
	}
	return 0;
}
