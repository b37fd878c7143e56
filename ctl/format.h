/* Numbers as people read them. Pure. */
#pragma once

#include "node/status.h"

#include <stdint.h>

struct format_text {
	char s[64];
};

/* "12.3 ms", "850 us", "1.20 s"; "-" when unknown (negative). */
struct format_text format_latency(int64_t us);
/* "now", "12 s", "3 min", "2 h 5 min", "4 d 1 h"; "-" when unknown. */
struct format_text format_duration(int64_t ms);
/* "512 B", "1.5 KiB", "20.0 MiB". */
struct format_text format_bytes(uint64_t n);
/* "2026-11-21 12:00 UTC"; "-" for 0. */
struct format_text format_date(int64_t unix_s);
/* "direct 198.51.100.1:51820", "relay gate", "direct … and relay gate", "none". */
struct format_path {
	char s[192];
} format_path(enum node_path_kind kind, const struct endpoint *endpoint, const char *relay);
/* What the NAT means for people: one clause. */
const char *format_nat(enum node_nat nat);
/* "24h", "30m", "7d", "90s", "2w" to seconds. 0 or -EINVAL. */
P2P_CHECK int format_parse_duration(const char *text, int64_t *ret_s);
