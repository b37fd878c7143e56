/*
 * A data plane that only remembers: what the actors published and sent. Include in one file of a
 * test program; its functions take the place of the real ones.
 */
#pragma once

#include "actors/data_plane.h"

#include <errno.h>
#include <string.h>

#define FAKE_MAX 64

struct fake_sent {
	bool is_frame, is_whole;
	struct endpoint to;
	uint32_t relay_id, peer_id;
	size_t len;
	uint8_t bytes[9000];
};

struct data_plane {
	uint32_t n_sent;
	struct fake_sent sent[FAKE_MAX];
	struct peer_path paths[FAKE_MAX]; /* by peer id, modulo FAKE_MAX */
	uint32_t n_paths_set;
	struct endpoint heard[FAKE_MAX]; /* by peer id: where it was heard last */
	int wireguard_port;		 /* what data_plane_wireguard_port() answers */
	struct endpoint told[FAKE_MAX];	 /* by peer id: where its WireGuard is */
	int send_result;
	uint32_t mtu[FAKE_MAX]; /* by peer id */
	struct relay_way relay_way; /* of all peers */
	bool relay_up[FAKE_MAX]; /* by relay id */
	bool has_no_udp; /* relays are up by TLS alone */
	uint32_t held[FAKE_MAX];
	uint32_t n_held;
	uint32_t dropped[FAKE_MAX];
	uint32_t n_dropped;
	uint32_t n_answered, answered_by; /* questions by relay, the relay of the last answer */
};

void data_plane_attach(struct data_plane *plane, const struct data_plane_ports *ports)
{
}

void data_plane_set_path(struct data_plane *plane, uint32_t peer_id, const struct peer_path *path)
{
	plane->paths[peer_id % FAKE_MAX] = *path;
	plane->n_paths_set++;
}

bool data_plane_get_path(const struct data_plane *plane, uint32_t peer_id, struct peer_path *ret)
{
	*ret = plane->paths[peer_id % FAKE_MAX];
	return true;
}

void data_plane_heard(struct data_plane *plane, uint32_t peer_id, const struct endpoint *from)
{
	plane->heard[peer_id % FAKE_MAX] = *from;
}

void data_plane_answered(struct data_plane *plane, uint32_t peer_id, uint32_t relay_id)
{
	plane->n_answered++;
	plane->answered_by = relay_id;
}

int data_plane_wireguard_port(const struct data_plane *plane, const struct endpoint *observed)
{
	return plane->wireguard_port;
}

void data_plane_told_wireguard(struct data_plane *plane, uint32_t peer_id, const struct endpoint *at)
{
	plane->told[peer_id % FAKE_MAX] = *at;
}

static void fake_send(struct data_plane *plane, struct fake_sent sent, const uint8_t *bytes)
{
	memcpy(sent.bytes, bytes, sent.len);
	plane->sent[plane->n_sent++ % FAKE_MAX] = sent;
}

int data_plane_send_datagram(struct data_plane *plane, const struct endpoint *to, const uint8_t *bytes,
			     size_t len)
{
	fake_send(plane, (struct fake_sent){ .to = *to, .len = len }, bytes);
	return plane->send_result;
}

int data_plane_send_probe(struct data_plane *plane, const struct endpoint *to, const uint8_t *bytes, size_t len)
{
	return data_plane_send_datagram(plane, to, bytes, len);
}

uint32_t data_plane_first_mtu(const struct data_plane *plane, const struct endpoint *to)
{
	return 1440;
}

bool data_plane_relay_way(const struct data_plane *plane, uint32_t peer_id, struct relay_way *ret)
{
	*ret = plane->relay_way;
	return ret->relay_id != 0;
}

uint32_t data_plane_first_relayed_mtu(const struct data_plane *plane, const struct relay_way *way)
{
	return way->remote.port == 0 ? 8920 : 1424;
}

int data_plane_send_frame_whole(struct data_plane *plane, uint32_t peer_id, const uint8_t *bytes, size_t len)
{
	fake_send(plane, (struct fake_sent){ .is_frame = true, .is_whole = true, .peer_id = peer_id, .len = len },
		  bytes);
	return plane->send_result;
}

void data_plane_set_mtu(struct data_plane *plane, uint32_t peer_id, uint32_t mtu)
{
	plane->mtu[peer_id % FAKE_MAX] = mtu;
}

int data_plane_send_frame(struct data_plane *plane, uint32_t relay_id, uint32_t peer_id,
			  const uint8_t *bytes, size_t len)
{
	fake_send(plane,
		  (struct fake_sent){ .is_frame = true, .relay_id = relay_id, .peer_id = peer_id, .len = len },
		  bytes);
	return plane->send_result;
}

void data_plane_hold_relay(struct data_plane *plane, const struct map_relay *relay)
{
	plane->held[plane->n_held++ % FAKE_MAX] = relay->id;
}

void data_plane_drop_relay(struct data_plane *plane, uint32_t relay_id)
{
	plane->dropped[plane->n_dropped++ % FAKE_MAX] = relay_id;
}

bool data_plane_relay_is_up(const struct data_plane *plane, uint32_t relay_id)
{
	return plane->relay_up[relay_id];
}

void data_plane_rank_relays(struct data_plane *plane, uint32_t home, const uint32_t *ids, uint32_t n)
{
	(void)home;
}

uint32_t data_plane_relay_rtt_us(const struct data_plane *plane, uint32_t relay_id)
{
	return 0;
}

struct endpoint data_plane_relay_remote(const struct data_plane *plane, uint32_t relay_id)
{
	return (struct endpoint){ .port = plane->has_no_udp ? 0 : 3478 };
}

uint16_t data_plane_port(const struct data_plane *plane)
{
	return 51820;
}
