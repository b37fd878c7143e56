#include "node/wireguard/udp_steering.h"

#include <errno.h>
#include <linux/filter.h>
#include <sys/socket.h>

#include "common/relay_udp_wire.h"

/* Loads are big-endian: the first four bytes are the type and three zeros. */
#define TYPE(n) ((uint32_t)(n) << 24)
#define RELAYED (RELAY_UDP_MAGIC | RELAY_UDP_DATA)

#define LOAD(size, at) BPF_STMT(BPF_LD | (size) | BPF_ABS, at)
/* What is in A moves up, the byte at this offset becomes the lowest. */
#define APPEND(at)                                                                                         \
	BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 8), BPF_STMT(BPF_MISC | BPF_TAX, 0), LOAD(BPF_B, at),          \
		BPF_STMT(BPF_ALU | BPF_OR | BPF_X, 0)
#define N_APPEND 4
/* The index is little-endian. */
#define INDEX(at) LOAD(BPF_B, (at) + 3), APPEND((at) + 2), APPEND((at) + 1), APPEND(at)
#define N_INDEX	  (1 + 3 * N_APPEND)

/*
 * The kernel runs the program with the UDP payload at offset 0. A load beyond the end ends it with 0,
 * so that short datagrams go to the first socket, too. Of a train that the kernel joined (UDP_GRO),
 * the first datagram decides.
 */
int udp_steering_attach(int fd, uint32_t n_sockets)
{
	struct sock_filter code[] = {
		LOAD(BPF_W, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TYPE(4), 6, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TYPE(3), 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TYPE(2), 4 + N_INDEX + 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RELAYED, 0, 2),
		LOAD(BPF_W, RELAY_UDP_HEADER_LEN),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, TYPE(4), 1 + 2 * (N_INDEX + 1), 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
		INDEX(4),
		BPF_STMT(BPF_JMP | BPF_JA, 2 * N_INDEX + 1),
		INDEX(8),
		BPF_STMT(BPF_JMP | BPF_JA, N_INDEX),
		INDEX(RELAY_UDP_HEADER_LEN + 4),
		BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, n_sockets),
		BPF_STMT(BPF_RET | BPF_A, 0),
	};
	const struct sock_fprog program = { .len = sizeof(code) / sizeof(*code), .filter = code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) == 0 ? 0 :
												      -errno;
}
