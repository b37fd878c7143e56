/*
 * Superpackets: one TCP or UDP packet that stands for many, as the kernel hands them through TUN.
 *
 *   cut     superpacket + header ──► trains of whole packets with right lengths and checksums
 *   merge   consecutive packets of one flow in a train ──► header + pieces of one superpacket
 *
 * Pure: buffers in, buffers out. What may be merged follows the kernel's own GRO; a merge never
 * changes the order of packets and can be cut into the same packets again.
 */
#pragma once

#include "common/macros.h"
#include "node/wireguard/copy_sum.h"
#include "node/wireguard/train.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define OFFLOAD_MAX_PACKET 65535

/* struct virtio_net_hdr of <linux/virtio_net.h>, native byte order. */
struct offload_header {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
};
#define OFFLOAD_HEADER_LEN	10
#define OFFLOAD_NEEDS_CSUM	1 /* flags */
#define OFFLOAD_GSO_NONE	0 /* gso_type */
#define OFFLOAD_GSO_TCP4	1
#define OFFLOAD_GSO_TCP6	4
#define OFFLOAD_GSO_UDP		5
#define OFFLOAD_GSO_ECN		0x80

enum offload_error {
	OFFLOAD_E_MALFORMED = 1, /* header and packet contradict each other */
	OFFLOAD_E_UNSUPPORTED,	 /* a kind of segmentation that was not asked for */
};

/* ---- cutting ---- */

struct offload_cut {
	const uint8_t *packet;
	uint32_t header_len;	/* IP and TCP or UDP header */
	uint32_t csum_start;	/* where TCP or UDP begins */
	uint32_t segment_len;	/* payload of each packet */
	uint32_t payload_len;	/* of all */
	uint32_t done;		/* payload bytes cut so far */
	uint32_t n_cut;		/* packets cut so far */
	bool is_v4, is_tcp;
	copy_sum_fn copy_sum;
	uint32_t ip_sum, l4_sum; /* of what is the same in the headers of all packets */
};

/*
 * A packet that needs no cutting gets its checksum completed in place, and *ret_is_super false.
 * 0 or an enum offload_error.
 */
P2P_CHECK int offload_begin(const struct offload_header *header, uint8_t *packet, size_t len,
			    struct offload_cut *ret, bool *ret_is_super);
/* Length of the packets that the cut makes (all but the last). */
uint32_t offload_packet_len(const struct offload_cut *cut);
/*
 * Makes the next max_n packets (or fewer: the rest) at out, stride bytes apart, as *ret.
 * stride ≥ offload_packet_len(). False when nothing is left.
 */
bool offload_next(struct offload_cut *cut, uint8_t *out, uint32_t stride, uint32_t max_n, struct train *ret);

/* ---- merging ---- */

/* IP and TCP or UDP, with all options that a merged packet can have. */
#define OFFLOAD_MAX_HEADERS 100

/* A run of packets of one train to be written at once: n pieces, the first is the header below. */
struct offload_run {
	struct offload_header header;
	int n_pieces;
	struct iovec pieces[TRAIN_MAX + 1];
	uint8_t headers_before[OFFLOAD_MAX_HEADERS]; /* of the first packet, when merged */
};

/* What the kernel takes as superpackets: a set of these. */
#define OFFLOAD_MERGE_TCP 1u
#define OFFLOAD_MERGE_UDP 2u

/*
 * Packets first … of the train that may travel as one superpacket, at least one. The first packet's
 * headers are changed in place to those of the whole. Returns how many packets the run holds.
 * The run points into itself and into the train.
 */
uint32_t offload_merge(const struct train *packets, uint32_t first, unsigned kinds,
		       struct offload_run *ret);
/* Gives the first packet its own headers back: the run's packets are single ones again. */
void offload_undo_merge(const struct offload_run *run);

/* ---- sums, for those who make packets ---- */

/* One's-complement sum of bytes in network order, added to sum; fold with offload_fold(). */
uint64_t offload_sum(const void *bytes, size_t len, uint64_t sum);
/* 16 bits, in memory order of the host as offload_sum() gives them; not inverted. */
uint16_t offload_fold(uint64_t sum);
/* Folded pseudo-header sum of a packet whose IP header is at ip. */
uint16_t offload_pseudo_sum(const uint8_t *ip, bool is_v4, uint8_t protocol, uint32_t l4_len);
