/*
 * The names that a gateway may have been told, in a file for the next start: one a line. Pure.
 */
#pragma once

#include "common/macros.h"
#include "relay/frontdoor/host_name.h"

#include <stdbool.h>
#include <stddef.h>

struct gateway_notes {
	const char *at;
	size_t left;
};

/* The next name, which diglett_name_parse() takes; lines that are none are passed over. False: there is none any more. */
P2P_CHECK bool gateway_notes_next(struct gateway_notes *notes, struct host_name *ret);
/* How many are left? One that is there twice counts twice. */
P2P_CHECK size_t gateway_notes_count(struct gateway_notes notes);
