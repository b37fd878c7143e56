/*
 * bench_relay_clients [udp|tls [CLIENTS [SECONDS]]]
 *
 * Memory and CPU of clients that are idle: 100,000 over UDP, measured for SECONDS (5), then 10,000 over TLS, or as
 * many as said. Exits with 1 when one of them costs more than it may.
 */
#include "tests/bench/relay_clients/clients.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	const bool is_udp = argc < 2 || strcmp(argv[1], "udp") == 0, is_tls = argc < 2 || strcmp(argv[1], "tls") == 0;
	const unsigned n = argc > 2 ? (unsigned)atoi(argv[2]) : 0;

	if (!is_udp && !is_tls) {
		fputs("bench_relay_clients [udp|tls [CLIENTS [SECONDS]]]\n", stderr);
		return 2;
	}
	const bool is_udp_well = !is_udp || clients_over_udp(n ? n : 100000, argc > 3 ? atof(argv[3]) : 5);
	const bool is_tls_well = !is_tls || clients_over_tls(n ? n : 10000);
	return is_udp_well && is_tls_well ? 0 : 1;
}
