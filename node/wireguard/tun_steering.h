/*
 * Which queue of a TUN interface the kernel puts a packet into: one that depends on the packet's
 * flow alone.
 *
 * The kernel's own choice follows the queue on which the flow was last *written*, and a hash that
 * TCP changes after a timeout: a flow would move, and be reordered. This choice is an eBPF program
 * that hashes addresses, and for TCP the ports. Other protocols are steered by addresses: a UDP
 * flow may consist of datagrams and of fragments, and only the first fragment has the ports.
 */
#pragma once

#include "common/macros.h"

/*
 * For a program that gives up CAP_BPF before it opens interfaces: loads what is needed now and keeps it.
 * Call before there are threads. Where it is not possible, tun_steering_load() will say so.
 */
void tun_steering_prepare(void);
/* Before execve(2): what was prepared is left to the program that runs then, whose tun_steering_prepare() takes it. */
void tun_steering_hand_over(void);
/*
 * Loads the program: its descriptor, or -errno where that is not possible (-EPERM without CAP_BPF,
 * -ENOSYS, -EINVAL). The descriptor may be closed when the program has been attached.
 */
P2P_CHECK int tun_steering_load(void);
/* Makes the program that of the interface behind tun_fd. 0 or -errno. */
P2P_CHECK int tun_steering_attach(int tun_fd, int program_fd);
