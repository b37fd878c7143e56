/*
 * The name of a host: one form for what is configured and for what visitors ask for, so that the two meet
 * whenever they mean the same.
 *
 *   text                    as a name          why not
 *   App.Example.ORG.        app.example.org
 *   app.example.org:8443    app.example.org    (only where an authority stands: Host, :authority)
 *   xn--bcher-kva.example   the same
 *   bücher.example          -                  HOST_NAME_CHARACTER: IDNA only as A-labels
 *   192.0.2.1, [2001:db8::1], 0x7f.1           HOST_NAME_ADDRESS
 *   a..b, -a.b, 64 letters  -                  HOST_NAME_LABEL
 *   *.example.org           -                  HOST_NAME_CHARACTER; as a pattern of the configuration: yes
 *
 * Letters, digits, hyphens within labels, and underscores; a label has 1 … 63 of them, a name 253. One dot at
 * the end is taken away. What comes out is harmless in a log, on a command line and in a file of another program's.
 *
 * Pure.
 */
#pragma once

#include "common/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HOST_NAME_MAX_LEN	      253
#define HOST_PATTERN_MAX_WILDCARD_LEN (HOST_NAME_MAX_LEN - 2) /* behind "*.": one label and a dot come in front */

enum host_name_error {
	HOST_NAME_EMPTY = 1,
	HOST_NAME_TOO_LONG,
	HOST_NAME_CHARACTER, /* something else than letters, digits, '-', '_' and dots */
	HOST_NAME_LABEL,     /* empty, too long, or with a hyphen at an end */
	HOST_NAME_ADDRESS,   /* of IPv4 or IPv6, or read as one by somebody */
	HOST_NAME_PORT,	     /* behind the colon is no port */
};

/* Lower case, without the last dot; text ends in NUL and is all zero behind it: two of them compare as bytes. */
struct host_name {
	uint8_t len;
	char text[HOST_NAME_MAX_LEN + 1];
};

/* What may be configured: a name, or "*." and a name. */
struct host_pattern {
	bool is_wildcard;
	struct host_name name; /* of a wildcard: what stands behind "*." */
};

/* 0 or an enum host_name_error; *ret is written only on success. text needs no NUL, and may hold one. */
P2P_CHECK int host_name_from(const char *text, size_t len, struct host_name *ret);
/* "name", "name:port" or "name:"; the port must be one and is not looked at further. User info is a wrong character. */
P2P_CHECK int host_name_from_authority(const char *text, size_t len, struct host_name *ret);
P2P_CHECK int host_pattern_from(const char *text, size_t len, struct host_pattern *ret);

bool host_name_equal(const struct host_name *a, const struct host_name *b);
/*
 * Does it match? A wildcard stands for exactly one label, as in certificates (RFC 9525, section 6.3): "*.example.org"
 * is a.example.org, and neither a.b.example.org nor example.org.
 */
bool host_pattern_matches(const struct host_pattern *pattern, const struct host_name *name);
/* "a character that no host name has": for a message to people. */
const char *host_name_error_text(int error);
