/*
 * Asks a router for a port, in one of the three ways, and prints what came of it.
 *
 *   port_mapping upnp   ROUTER OURS:PORT EXTERNAL_PORT LIFETIME_S
 *   port_mapping pcp    …                                            lifetime 0: removes
 *   port_mapping natpmp …                                            lifetime 0: removes
 *   port_mapping upnp-remove ROUTER OURS:PORT EXTERNAL_PORT
 *
 *   {"external": "203.0.113.5:40001", "lifetime_s": 7200}      {"error": -13, "message": "…"}
 *
 * The error of a PCP or NAT-PMP answer is its result.
 */
#include "common/port_mapping_wire.h"
#include "node/upnp.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define N_SENT	   4
#define PATIENCE_MS 1000

static int print_mapped(const struct endpoint *external, uint32_t lifetime_s)
{
	printf("{\"external\": \"%s\", \"lifetime_s\": %u}\n", endpoint_text(external).s, lifetime_s);
	return 0;
}

static int print_error(int error, const char *message)
{
	printf("{\"error\": %d, \"message\": \"%s\"}\n", error, message);
	return 0;
}

static int upnp(const struct upnp_request *request, bool is_removal)
{
	struct endpoint external = { 0 };
	uint32_t lifetime_s = 0;
	struct error error;
	int r = is_removal ? upnp_remove(request, &error) : upnp_map(request, &external, &lifetime_s, NULL, &error);

	return r == 0 ? print_mapped(&external, lifetime_s) : print_error(r, error.message);
}

/* Bytes of the answer; ends the program if there is none. */
static size_t ask(const struct upnp_request *request, const uint8_t *bytes, size_t len, uint8_t ret[PCP_MAX_LEN])
{
	struct endpoint from = request->ours, to = request->router;
	struct sockaddr_storage address;

	from.port = 0;
	to.port = PORT_MAPPING_SERVER_PORT;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t size = endpoint_to_sockaddr(&from, &address);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0) {
		perror("port_mapping");
		exit(1);
	}
	size = endpoint_to_sockaddr(&to, &address);
	for (int i = 0; i < N_SENT; i++) {
		struct pollfd pollfd = { .fd = fd, .events = POLLIN };
		sendto(fd, bytes, len, 0, (struct sockaddr *)&address, size);
		if (poll(&pollfd, 1, PATIENCE_MS) <= 0)
			continue;
		ssize_t n = recv(fd, ret, PCP_MAX_LEN, 0);
		if (n >= 0) {
			close(fd);
			return (size_t)n;
		}
	}
	print_error(-ETIMEDOUT, "no answer");
	exit(0);
}

static int pcp(const struct upnp_request *request)
{
	struct pcp_map map = { .ours = request->ours,
			       .external = { .port = request->external_port },
			       .lifetime_s = request->lifetime_s };
	uint8_t bytes[PORT_MAPPING_MAX_LEN], answer[PCP_MAX_LEN];
	struct pcp_mapped mapped = { 0 };

	/* Known by the port, so that another run can remove it. */
	memset(map.nonce, request->ours.port & 0xff, sizeof(map.nonce));
	size_t len = ask(request, bytes, pcp_encode_map(bytes, sizeof(bytes), &map), answer);
	int r = pcp_decode_mapped(answer, len, &mapped);
	if (r != 0)
		return print_error(r == PORT_MAPPING_E_REFUSED ? mapped.result : -EPROTO, "PCP");
	if (memcmp(mapped.nonce, map.nonce, sizeof(map.nonce)) != 0 || mapped.internal_port != request->ours.port)
		return print_error(-EPROTO, "PCP: another mapping");
	return print_mapped(&mapped.external, mapped.lifetime_s);
}

static int natpmp(const struct upnp_request *request)
{
	uint8_t bytes[PORT_MAPPING_MAX_LEN], answer[PCP_MAX_LEN];
	struct natpmp_answer address = { 0 }, mapped = { 0 };
	size_t len = ask(request, bytes, natpmp_encode_address(bytes, sizeof(bytes)), answer);
	int r = natpmp_decode(answer, len, &address);

	if (r != 0 || address.type != NATPMP_ADDRESS)
		return print_error(r == PORT_MAPPING_E_REFUSED ? address.result : -EPROTO, "NAT-PMP: address");
	const uint16_t wanted = request->lifetime_s == 0 ? 0 : request->external_port;
	len = ask(request, bytes, natpmp_encode_map(bytes, sizeof(bytes), request->ours.port, wanted, request->lifetime_s), answer);
	r = natpmp_decode(answer, len, &mapped);
	if (r != 0 || mapped.type != NATPMP_MAPPED || mapped.internal_port != request->ours.port)
		return print_error(r == PORT_MAPPING_E_REFUSED ? mapped.result : -EPROTO, "NAT-PMP: mapping");
	address.address.port = mapped.external_port;
	return print_mapped(&address.address, mapped.lifetime_s);
}

int main(int argc, char *argv[])
{
	struct upnp_request request = { 0 };

	if (argc < 5 || sodium_init() < 0 || endpoint_parse_ip(argv[2], 0, &request.router) != 0 ||
	    endpoint_parse(argv[3], &request.ours) != 0) {
		fputs("usage: port_mapping WAY ROUTER OURS:PORT EXTERNAL_PORT [LIFETIME_S]\n", stderr);
		return 2;
	}
	request.external_port = (uint16_t)atoi(argv[4]);
	request.lifetime_s = argc > 5 ? (uint32_t)atoi(argv[5]) : 0;
	if (strcmp(argv[1], "pcp") == 0)
		return pcp(&request);
	if (strcmp(argv[1], "natpmp") == 0)
		return natpmp(&request);
	return upnp(&request, strcmp(argv[1], "upnp-remove") == 0);
}
