/*
 * What clients of a relay cost it that only stay, over both transports: bench_relay_clients.
 *
 *   main.c   options
 *   udp.c    over UDP, also under a flood of strangers
 *   tls.c    over TLS
 */
#pragma once

#include <stdbool.h>

/* Print what they find; false when something costs more than it may. End the program when they cannot measure. */
bool clients_over_udp(unsigned n, double seconds);
bool clients_over_tls(unsigned n);
