/*
 * The program in words; loads beyond the packet's end finish it with 0, which is queue 0.
 *
 *   hash = 0
 *   IPv4: mix in source, destination; if TCP and no fragment: both ports
 *   IPv6: mix in source, destination (8 words); if TCP follows directly: both ports
 *   return finished hash                     (the kernel takes it modulo the number of queues)
 */
#include "node/wireguard/tun_steering.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HASH BPF_REG_7

#define OP(code_, dst, src, off_, imm_)                                                                    \
	{ .code = (code_), .dst_reg = (dst), .src_reg = (src), .off = (off_), .imm = (int32_t)(imm_) }
#define COPY(dst, src)	    OP(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define SET(dst, value)	    OP(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value)
#define ALU(op, dst, value) OP(BPF_ALU | (op) | BPF_K, dst, 0, 0, value)
#define XOR(dst, src)	    OP(BPF_ALU | BPF_XOR | BPF_X, dst, src, 0, 0)
/* To register 0, from an offset in the packet; registers 1 to 5 are lost. */
#define LOAD(size, at) OP(BPF_LD | BPF_ABS | (size), 0, 0, 0, at)
/* The same, from the offset in a register plus one. */
#define LOAD_BEHIND(size, reg, at) OP(BPF_LD | BPF_IND | (size), 0, reg, 0, at)
#define UNLESS_EQUAL(value, skip)  OP(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_0, 0, skip, value)
#define UNLESS_ZERO(skip)	   UNLESS_EQUAL(0, skip)
#define EXIT			   OP(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

/* Register 0 into the hash. A product spreads each bit to those above it, the shift to those below. */
#define MIX                                                                                                \
	XOR(HASH, BPF_REG_0), ALU(BPF_MUL, HASH, 0x9e3779b1), COPY(BPF_REG_0, HASH),                       \
		ALU(BPF_RSH, BPF_REG_0, 15), XOR(HASH, BPF_REG_0)
#define N_MIX	    5
#define MIX_WORD(at) LOAD(BPF_W, at), MIX
#define N_MIX_WORD  (1 + N_MIX)
/* The middle of another product: all bits have come to bear on the lowest, which a modulo looks at. */
#define FINISH	 COPY(BPF_REG_0, HASH), ALU(BPF_MUL, BPF_REG_0, 0x85ebca6b), ALU(BPF_RSH, BPF_REG_0, 16), EXIT
#define N_FINISH 4

static const struct bpf_insn program[] = {
	COPY(BPF_REG_6, BPF_REG_1), /* where loads expect the packet */
	SET(HASH, 0),
	LOAD(BPF_B, 0),
	ALU(BPF_RSH, BPF_REG_0, 4),

	UNLESS_EQUAL(4, 2 * N_MIX_WORD + 2 + 3 + 4 + N_MIX + N_FINISH),
	MIX_WORD(12), /* source */
	MIX_WORD(16), /* destination */
	LOAD(BPF_B, 9),
	UNLESS_EQUAL(IPPROTO_TCP, 3 + 4 + N_MIX),
	LOAD(BPF_H, 6),
	ALU(BPF_AND, BPF_REG_0, 0x3fff), /* "more fragments" and the offset */
	UNLESS_ZERO(4 + N_MIX),
	LOAD(BPF_B, 0),
	ALU(BPF_AND, BPF_REG_0, 0x0f),
	ALU(BPF_LSH, BPF_REG_0, 2), /* length of the header */
	LOAD_BEHIND(BPF_W, BPF_REG_0, 0),
	MIX,
	FINISH,

	UNLESS_EQUAL(6, 8 * N_MIX_WORD + 2 + N_MIX_WORD),
	MIX_WORD(8),
	MIX_WORD(12),
	MIX_WORD(16),
	MIX_WORD(20),
	MIX_WORD(24),
	MIX_WORD(28),
	MIX_WORD(32),
	MIX_WORD(36),
	LOAD(BPF_B, 6),
	UNLESS_EQUAL(IPPROTO_TCP, N_MIX_WORD),
	MIX_WORD(40),
	FINISH,
};

#define HANDED_OVER    "P2P_TUN_STEERING_FD"
#define HANDED_OVER_FD 128 /* at least: below it may be numbers that sockets are put down at */

static int prepared_fd = -1;

static int load(void)
{
	union bpf_attr request = {
		.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
		.insns = (uint64_t)(uintptr_t)program,
		.insn_cnt = sizeof(program) / sizeof(*program),
		.license = (uint64_t)(uintptr_t) "GPL", /* it calls nothing that asks for one */
	};

	long fd = syscall(SYS_bpf, BPF_PROG_LOAD, &request, sizeof(request));
	return fd < 0 ? -errno : (int)fd;
}

/* A program of ours left it here, which had CAP_BPF when it began. -1: none. */
static int take_handed_over(void)
{
	const char *text = getenv(HANDED_OVER);
	int fd = text ? (int)strtol(text, NULL, 10) : -1;

	unsetenv(HANDED_OVER);
	return fd > STDERR_FILENO && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? fd : -1;
}

void tun_steering_prepare(void)
{
	prepared_fd = take_handed_over();
	if (prepared_fd < 0)
		prepared_fd = load();
}

void tun_steering_hand_over(void)
{
	char number[16];
	int fd = prepared_fd < 0 ? -1 : fcntl(prepared_fd, F_DUPFD, HANDED_OVER_FD);

	if (fd < 0)
		return;
	snprintf(number, sizeof(number), "%d", fd);
	setenv(HANDED_OVER, number, 1);
}

int tun_steering_load(void)
{
	if (prepared_fd < 0)
		return load();
	int fd = fcntl(prepared_fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

int tun_steering_attach(int tun_fd, int program_fd)
{
	return ioctl(tun_fd, TUNSETSTEERINGEBPF, &program_fd) == 0 ? 0 : -errno;
}
