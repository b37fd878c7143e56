#include "ctl/format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct format_text format_latency(int64_t us)
{
	struct format_text text = { "-" };

	if (us >= 0 && us < 1000)
		snprintf(text.s, sizeof(text.s), "%" PRId64 " us", us);
	else if (us >= 1000 && us < 100000)
		snprintf(text.s, sizeof(text.s), "%.1f ms", (double)us / 1e3);
	else if (us >= 100000 && us < 1000000)
		snprintf(text.s, sizeof(text.s), "%" PRId64 " ms", us / 1000);
	else if (us >= 1000000)
		snprintf(text.s, sizeof(text.s), "%.2f s", (double)us / 1e6);
	return text;
}

struct format_text format_duration(int64_t ms)
{
	struct format_text text = { "-" };
	int64_t s = ms / 1000, min = s / 60, h = min / 60, d = h / 24;

	if (ms < 0)
		return text;
	if (s < 1)
		snprintf(text.s, sizeof(text.s), "now");
	else if (s < 120)
		snprintf(text.s, sizeof(text.s), "%" PRId64 " s", s);
	else if (min < 120)
		snprintf(text.s, sizeof(text.s), "%" PRId64 " min", min);
	else if (h < 48)
		snprintf(text.s, sizeof(text.s), "%" PRId64 " h %" PRId64 " min", h, min % 60);
	else
		snprintf(text.s, sizeof(text.s), "%" PRId64 " d %" PRId64 " h", d, h % 24);
	return text;
}

struct format_text format_bytes(uint64_t n)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	struct format_text text;
	double value = (double)n;
	size_t i = 0;

	if (n < 1024) {
		snprintf(text.s, sizeof(text.s), "%" PRIu64 " B", n);
		return text;
	}
	for (value /= 1024; value >= 1024 && i + 1 < ARRAY_LEN(units); i++)
		value /= 1024;
	snprintf(text.s, sizeof(text.s), "%.1f %s", value, units[i]);
	return text;
}

struct format_text format_date(int64_t unix_s)
{
	struct format_text text = { "-" };
	time_t at = (time_t)unix_s;
	struct tm tm;

	if (unix_s != 0 && gmtime_r(&at, &tm))
		strftime(text.s, sizeof(text.s), "%Y-%m-%d %H:%M UTC", &tm);
	return text;
}

struct format_path format_path(enum node_path_kind kind, const struct endpoint *endpoint,
			       const char *relay)
{
	const char *name = relay[0] != '\0' ? relay : "(not known)";
	struct format_path path = { "none" };

	if (kind == NODE_PATH_DIRECT)
		snprintf(path.s, sizeof(path.s), "direct %s", endpoint_text(endpoint).s);
	if (kind == NODE_PATH_RELAY)
		snprintf(path.s, sizeof(path.s), "relay %s", name);
	if (kind == NODE_PATH_BOTH)
		snprintf(path.s, sizeof(path.s), "direct %s and relay %s",
			 endpoint_text(endpoint).s, name);
	return path;
}

const char *format_nat(enum node_nat nat)
{
	switch (nat) {
	case NODE_NAT_UNKNOWN:
		return "not known yet";
	case NODE_NAT_NONE:
		return "none: this machine has an outside address of its own";
	case NODE_NAT_EASY:
		return "easy: one outside port for all destinations, so most peers can be reached directly";
	case NODE_NAT_HARD:
		return "hard: another outside port for each destination, so some peers need the relay";
	case NODE_NAT_UDP_BLOCKED:
		return "UDP does not get out: all traffic goes by relay over TLS";
	case NODE_N_NATS:
		break;
	}
	return "not known yet";
}

int format_parse_duration(const char *text, int64_t *ret_s)
{
	static const struct {
		char unit;
		int64_t s;
	} units[] = { { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 }, { 'w', 7 * 86400 } };
	int64_t value = 0;
	const char *at = text;

	for (; *at >= '0' && *at <= '9'; at++) {
		value = value * 10 + (*at - '0');
		if (value > 1000000000)
			return -EINVAL;
	}
	if (at == text || at[0] == '\0' || at[1] != '\0' || value == 0)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		if (units[i].unit == *at) {
			*ret_s = value * units[i].s;
			return 0;
		}
	}
	return -EINVAL;
}
