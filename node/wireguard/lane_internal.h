/*
 * The insides of a lane's thread, shared by its files: lane.c (life, waiting, what goes to others),
 * lane_tx.c (from the TUN to the network), lane_rx.c (from the network to the TUN).
 */
#pragma once

#include "node/wireguard/lane.h"
#include "node/wireguard/wait_budget.h"

#include <pthread.h>
#include <semaphore.h>

enum lane_source {
	SOURCE_WAKE,
	SOURCE_UDP,				     /* + family */
	SOURCE_TUN = SOURCE_UDP + UDP_N_FAMILIES, /* + queue */
	SOURCE_N = SOURCE_TUN + LANES_MAX_QUEUES,
};

#define SOURCES_TUN (((1u << LANES_MAX_QUEUES) - 1) << SOURCE_TUN)

/* Written by the lane's thread, read by any. */
struct lane_counts {
	_Atomic uint64_t unknown, sends_dropped, tun_refused, rejected;
	_Atomic uint64_t tun_reads, tun_packets, tun_bytes, udp_messages, udp_datagrams, udp_bytes, udp_relayed;
};

struct lane_call {
	void (*fn)(struct lane *lane, void *arg);
	void *arg;
	sem_t done;
};

struct lane {
	/* never changed */
	struct lane_config config;
	struct wg_lane *core;
	struct wg_reader *reader;
	int wake_fd, epoll_fd;
	pthread_t thread;
	bool has_started;

	/* between the threads */
	struct ring news;    /* to the device's */
	struct ring relayed; /* from the loop's, and from other lanes: who puts has the claim */
	_Atomic bool is_claimed;
	struct lane_outbox outbox;
	_Atomic(struct lane_call *) call;
	_Atomic bool is_stopping, is_tun_gone;
	struct lane_counts counters;

	/* of the lane's thread */
	struct tun tuns[LANES_MAX_QUEUES]; /* copies: the descriptors are the set's. Written to the first */
	unsigned n_tuns;
	struct udp *udp;
	uint32_t mtu;
	struct wg_time now;
	uint32_t ready; /* bits by enum lane_source */
	bool device_has_news;
	struct wait_budget wait_budget;

	/* of the device's thread */
	uint64_t news_mark;

	/* TUN -> network */
	unsigned next_queue;  /* whose turn it is */
	struct train pending; /* packets read, not yet sealed; n 0: none */
	uint8_t *read_buffer, *cut_buffer;
	uint64_t reject_second;
	uint32_t n_reject_answers, n_too_big_answers; /* in that second */

	/* network -> TUN */
	uint8_t *relayed_buffer;
	struct udp_inbox *inbox;
	struct udp_relays relays; /* whose data it takes itself */
	bool has_delivered_datagrams; /* or other than TCP, since it was cleared */
};

static inline void lane_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/* lane_tx.c */
void lane_tx_init(struct lane *lane);
void lane_tx_deinit(struct lane *lane);
/* A bounded burst; clears the ready bits of queues that are empty. */
void lane_serve_tun(struct lane *lane);
/* Ports of the core. */
void lane_transmit(void *owner, struct wg_peer *peer, const struct wg_path *path, const struct train *train);
void lane_reject(void *owner, enum wg_drop why, const uint8_t *packet, size_t size, uint32_t mtu);

/* lane_rx.c */
void lane_rx_init(struct lane *lane);
void lane_rx_deinit(struct lane *lane);
void lane_serve_udp(struct lane *lane, enum udp_family family);
/* Bounded; sets SOURCE_WAKE's bit when there is more. */
void lane_serve_relayed(struct lane *lane);
void lane_deliver(void *owner, struct wg_peer *peer, const struct train *train);

/* lane.c */
void lane_wake(struct lane *lane);
/* Aborts when out of memory. */
void *lane_allocate(size_t size);
