/*
 * The four offloads and whether each is used.
 *
 *   tun-gso-read    the kernel hands TCP and UDP superpackets to the TUN's reader
 *   udp-gso         one system call sends a train of datagrams (UDP_SEGMENT)
 *   udp-gro         one message received may be a train of datagrams (UDP_GRO)
 *   tun-gro-write   packets of one flow are written to the TUN as one superpacket
 *
 * Kernels and network cards have bugs in each, so that each can be switched off alone, is probed when
 * opened, and is left off when the kernel refuses. A struct offloads says what is wanted, and takes down
 * what happens; TUN and UDP share one. The owner keeps it until both are closed. Counting is atomic: any
 * thread, and read by any.
 */
#pragma once

#include "common/error.h"
#include "common/macros.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first two are used by who sends to the network, the others by who receives. */
enum offload_kind {
	OFFLOAD_TUN_GSO_READ,
	OFFLOAD_UDP_GSO,
	OFFLOAD_UDP_GRO,
	OFFLOAD_TUN_GRO_WRITE,
	OFFLOAD_N_KINDS,
};

/* "tun-gso-read", … */
const char *offload_kind_name(enum offload_kind kind);

/* What is wanted; all zero: all four. */
struct offload_switches {
	bool off[OFFLOAD_N_KINDS];
};

/* "all", "none", or names separated by commas: exactly these are on. 0 or -EINVAL. */
P2P_CHECK int offload_switches_parse(const char *text, struct offload_switches *ret, struct error *reterr);
/* As text that is parsed to the same. */
#define OFFLOAD_SWITCHES_TEXT 64
void offload_switches_print(const struct offload_switches *switches, char ret[OFFLOAD_SWITCHES_TEXT]);
/* Parsed from $P2P_OFFLOADS; without it nothing is changed. For tests and for diagnosis in the field. */
P2P_CHECK int offload_switches_from_environment(struct offload_switches *switches, struct error *reterr);

struct offload_gauge {
	_Atomic uint64_t n_used;      /* superpackets and trains that went this way */
	_Atomic uint64_t n_refused;   /* that the kernel did not take, or gave malformed */
	_Atomic uint64_t n_fell_back; /* trains that went packet by packet instead */
	_Atomic int error;	      /* errno of the refusal in force; 0: none */
};

struct offloads {
	struct offload_switches switches; /* not changed while in use */
	struct offload_gauge gauges[OFFLOAD_N_KINDS];
};

/* A pointer that is NULL stands for all four, and nothing is taken down. */
bool offloads_want(const struct offloads *offloads, enum offload_kind kind);
void offloads_used(struct offloads *offloads, enum offload_kind kind);
void offloads_fell_back(struct offloads *offloads, enum offload_kind kind);
/* A refusal that concerns one packet or one path: counted. */
void offloads_refused(struct offloads *offloads, enum offload_kind kind);
/* error: why the offload is not used from now on, an errno; 0: it is used again. */
void offloads_set_error(struct offloads *offloads, enum offload_kind kind, int error);

/* For people and programs. */
struct offload_report {
	const char *name, *state; /* "on", "off" (by configuration), "refused" (by the kernel) */
	const char *error;	  /* "EINVAL" … when refused, else "" */
	uint64_t n_used, n_refused, n_fell_back;
};
struct offload_report offloads_report(const struct offloads *offloads, enum offload_kind kind);
