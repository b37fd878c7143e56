/* Numbers as people read them. */
#include "ctl/format.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static void expect(const char *got, const char *expected)
{
	if (strcmp(got, expected) != 0)
		fprintf(stderr, "expected: %s\ngot:      %s\n", expected, got);
	assert(strcmp(got, expected) == 0);
}

static void test_latencies(void)
{
	expect(format_latency(-1).s, "-");
	expect(format_latency(0).s, "0 us");
	expect(format_latency(999).s, "999 us");
	expect(format_latency(1000).s, "1.0 ms");
	expect(format_latency(12345).s, "12.3 ms");
	expect(format_latency(123456).s, "123 ms");
	expect(format_latency(1500000).s, "1.50 s");
}

static void test_durations(void)
{
	expect(format_duration(-1).s, "-");
	expect(format_duration(999).s, "now");
	expect(format_duration(119999).s, "119 s");
	expect(format_duration(120000).s, "2 min");
	expect(format_duration(7199999).s, "119 min");
	expect(format_duration(7500000).s, "2 h 5 min");
	expect(format_duration(4LL * 86400000 + 3600000).s, "4 d 1 h");
}

static void test_bytes(void)
{
	expect(format_bytes(0).s, "0 B");
	expect(format_bytes(1023).s, "1023 B");
	expect(format_bytes(1536).s, "1.5 KiB");
	expect(format_bytes(200ULL << 20).s, "200.0 MiB");
	expect(format_bytes(UINT64_MAX).s, "16.0 EiB");
}

static void test_paths(void)
{
	struct endpoint endpoint = endpoint_from_v4(0xc6336401, 51820);

	expect(format_path(NODE_PATH_NONE, &endpoint, "").s, "none");
	expect(format_path(NODE_PATH_DIRECT, &endpoint, "").s, "direct 198.51.100.1:51820");
	expect(format_path(NODE_PATH_RELAY, &endpoint, "gate").s, "relay gate");
	expect(format_path(NODE_PATH_RELAY, &endpoint, "").s, "relay (not known)");
	expect(format_path(NODE_PATH_BOTH, &endpoint, "gate").s, "direct 198.51.100.1:51820 and relay gate");
}

static void test_dates(void)
{
	expect(format_date(0).s, "-");
	expect(format_date(1800000000).s, "2027-01-15 08:00 UTC");
}

static void test_durations_are_read(void)
{
	static const char *const bad[] = { "", "h", "0h", "5", "5x", "5hh", "-5h", "99999999999h", "1.5h" };
	int64_t s;

	assert(format_parse_duration("90s", &s) == 0 && s == 90);
	assert(format_parse_duration("30m", &s) == 0 && s == 1800);
	assert(format_parse_duration("24h", &s) == 0 && s == 86400);
	assert(format_parse_duration("7d", &s) == 0 && s == 604800);
	assert(format_parse_duration("2w", &s) == 0 && s == 1209600);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert(format_parse_duration(bad[i], &s) != 0);
}

int main(void)
{
	test_latencies();
	test_durations();
	test_bytes();
	test_paths();
	test_dates();
	test_durations_are_read();
	return 0;
}
