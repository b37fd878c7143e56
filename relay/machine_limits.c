#include "relay/machine_limits.h"

#include "common/macros.h"

#include <inttypes.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define OTHER_FILES 256 /* the node's own: interface, control, lanes, local API */

struct warnings {
	struct machine_warning *list;
	uint32_t n;
};

static void P2P_PRINTF(2, 3) warn(struct warnings *warnings, const char *format, ...)
{
	va_list args;

	if (warnings->n == MACHINE_MAX_WARNINGS)
		return;
	va_start(args, format);
	vsnprintf(warnings->list[warnings->n].text, sizeof(warnings->list->text), format, args);
	va_end(args);
	warnings->n++;
}

static void judge_files(const struct machine_facts *facts, const struct machine_wants *wants, struct warnings *ret)
{
	uint64_t needed = (uint64_t)wants->tls_clients + OTHER_FILES;

	if (facts->open_files >= needed)
		return;
	warn(ret,
	     "%" PRIu64 " open files are allowed, room for %" PRIu64 " clients over TLS instead of %u: put "
	     "LimitNOFILE=%" PRIu64 " into [Service] (systemctl edit p2pnode), or raise 'ulimit -n'",
	     facts->open_files, facts->open_files > OTHER_FILES ? facts->open_files - OTHER_FILES : 0,
	     wants->tls_clients, needed);
}

static void judge_buffer(const char *what, const char *key, uint64_t got, uint64_t wanted, struct warnings *ret)
{
	if (got == 0 || got >= wanted)
		return;
	warn(ret,
	     "UDP sockets get a %s buffer of %" PRIu64 " KiB instead of %" PRIu64 ", and bursts are lost: 'sysctl -w "
	     "%s=%" PRIu64 "', and the same in /etc/sysctl.d/",
	     what, got / 1024, wanted / 1024, key, wanted);
}

static void judge_conntrack(const struct machine_facts *facts, const struct machine_wants *wants,
			    struct warnings *ret)
{
	uint64_t needed = (uint64_t)wants->tls_clients + wants->udp_clients;

	if (facts->conntrack_max == 0 || facts->conntrack_max >= needed)
		return;
	warn(ret,
	     "the firewall tracks at most %" PRIu64 " connections, and every client is one: exempt TCP port %u and UDP "
	     "port %u ('notrack' in nftables), or 'sysctl -w net.netfilter.nf_conntrack_max=%" PRIu64 "'",
	     facts->conntrack_max, wants->tls_port, wants->stun_port, needed);
}

static void judge_port(const struct machine_facts *facts, const char *kind, uint16_t port, struct warnings *ret)
{
	if (facts->may_bind_low || port == 0 || port >= facts->lowest_port)
		return;
	warn(ret,
	     "%s port %u needs CAP_NET_BIND_SERVICE, which p2pnode has not: start it by systemd, 'systemctl enable "
	     "--now p2pnode-relay.socket', or choose a port from %u on in [public]",
	     kind, port, facts->lowest_port);
}

uint32_t machine_limits_judge(const struct machine_facts *facts, const struct machine_wants *wants,
			      struct machine_warning ret[MACHINE_MAX_WARNINGS])
{
	struct warnings warnings = { .list = ret };

	judge_files(facts, wants, &warnings);
	judge_buffer("receive", "net.core.rmem_max", facts->receive_buffer, wants->udp_buffer, &warnings);
	judge_buffer("send", "net.core.wmem_max", facts->send_buffer, wants->udp_send_buffer, &warnings);
	judge_conntrack(facts, wants, &warnings);
	if (!wants->has_sockets) {
		judge_port(facts, "TCP", wants->tls_port, &warnings);
		judge_port(facts, "UDP", wants->stun_port, &warnings);
	}
	return warnings.n;
}

/* reading */

static uint64_t number_in(const char *path, uint64_t otherwise)
{
	FILE *file = fopen(path, "re");
	uint64_t number = otherwise;

	if (!file)
		return otherwise;
	if (fscanf(file, "%" SCNu64, &number) != 1)
		number = otherwise;
	fclose(file);
	return number;
}

/* What the kernel really gives, which it doubles for its own use and tells so. */
static uint64_t buffer_given(int fd, int force, int option, uint64_t wanted)
{
	int value = (int)wanted;
	socklen_t len = sizeof(value);

	if (fd < 0 || (setsockopt(fd, SOL_SOCKET, force, &value, sizeof(value)) < 0 &&
		       setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value)) < 0) ||
	    getsockopt(fd, SOL_SOCKET, option, &value, &len) < 0)
		return 0;
	return (uint64_t)value / 2;
}

static bool has_capability(unsigned capability)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];
	uint64_t effective = 0;

	if (!file)
		return true; /* then the attempt will show */
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "CapEff: %" SCNx64, &effective) == 1)
			break;
	fclose(file);
	return (effective >> capability & 1) != 0;
}

void machine_limits_read(const struct machine_wants *wants, struct machine_facts *ret)
{
	struct rlimit files = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	*ret = (struct machine_facts){
		.open_files = getrlimit(RLIMIT_NOFILE, &files) == 0 ? (uint64_t)files.rlim_max : UINT64_MAX,
		.receive_buffer = buffer_given(fd, SO_RCVBUFFORCE, SO_RCVBUF, wants->udp_buffer),
		.send_buffer = buffer_given(fd, SO_SNDBUFFORCE, SO_SNDBUF, wants->udp_send_buffer),
		.conntrack_max = number_in("/proc/sys/net/netfilter/nf_conntrack_max", 0),
		.lowest_port = (uint32_t)number_in("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024),
		.may_bind_low = has_capability(CAP_NET_BIND_SERVICE),
	};
	if (fd >= 0)
		close(fd);
}
