/* The relay's status as people read it. Pure: records in, text out. */
#pragma once

#include "node/relay_status.h"

#include <stdio.h>

/*
 * A summary, and the clients, those with most bytes first. With an earlier status of the same relay, the
 * clients' counts give way to what they did a second since then. max_clients 0: all are listed.
 */
void report_relay_status(FILE *out, const struct relay_status *status, const struct relay_status *earlier,
			 uint32_t max_clients);
