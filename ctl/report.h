/* The status and the netcheck as people read them. Pure: a struct in, text out. */
#pragma once

#include "node/status.h"

#include <stdio.h>

void report_status(FILE *out, const struct node_status *status);
void report_netcheck(FILE *out, const struct node_netcheck *netcheck);
/* Is there a way to other nodes: control or its cached map, and a relay? */
bool report_netcheck_is_good(const struct node_netcheck *netcheck);
