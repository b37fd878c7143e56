/* Which offloads are wanted, what became of them, and the paths on which one was refused. */
#include "node/wireguard/offload_switches.h"
#include "common/refused_paths.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_a_list_switches_on_exactly_what_it_names(void)
{
	struct offload_switches switches;

	assert(offload_switches_parse("udp-gro,tun-gso-read", &switches, NULL) == 0);
	assert(!switches.off[OFFLOAD_UDP_GRO] && !switches.off[OFFLOAD_TUN_GSO_READ]);
	assert(switches.off[OFFLOAD_UDP_GSO] && switches.off[OFFLOAD_TUN_GRO_WRITE]);
	assert(offload_switches_parse("all", &switches, NULL) == 0);
	for (int kind = 0; kind < OFFLOAD_N_KINDS; kind++)
		assert(!switches.off[kind]);
	assert(offload_switches_parse("none", &switches, NULL) == 0);
	for (int kind = 0; kind < OFFLOAD_N_KINDS; kind++)
		assert(switches.off[kind]);
}

static void test_what_is_no_list_is_refused_and_changes_nothing(void)
{
	static const char *const bad[] = { "", ",", "udp-gso,", ",udp-gso", "udp-gs", "udp-gsoo", "udp-gso udp-gro",
					   "all,udp-gso", "none,none", "UDP-GSO" };
	struct error error;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct offload_switches switches = { .off[OFFLOAD_UDP_GRO] = true };
		assert(offload_switches_parse(bad[i], &switches, &error) == -EINVAL);
		assert(strstr(error.message, "tun-gro-write") && switches.off[OFFLOAD_UDP_GRO]);
	}
}

static void test_every_set_is_printed_as_it_is_read(void)
{
	for (unsigned set = 0; set < 1u << OFFLOAD_N_KINDS; set++) {
		struct offload_switches switches, again;
		char text[OFFLOAD_SWITCHES_TEXT];
		for (int kind = 0; kind < OFFLOAD_N_KINDS; kind++)
			switches.off[kind] = set >> kind & 1;
		offload_switches_print(&switches, text);
		assert(offload_switches_parse(text, &again, NULL) == 0);
		assert(memcmp(&switches, &again, sizeof(switches)) == 0);
	}
}

static void test_the_environment_wins(void)
{
	struct offload_switches switches = { .off[OFFLOAD_UDP_GRO] = true };
	struct error error;

	unsetenv("P2P_OFFLOADS");
	assert(offload_switches_from_environment(&switches, &error) == 0 && switches.off[OFFLOAD_UDP_GRO]);
	setenv("P2P_OFFLOADS", "udp-gro", 1);
	assert(offload_switches_from_environment(&switches, &error) == 0);
	assert(!switches.off[OFFLOAD_UDP_GRO] && switches.off[OFFLOAD_UDP_GSO]);
	setenv("P2P_OFFLOADS", "nonsense", 1);
	assert(offload_switches_from_environment(&switches, &error) == -EINVAL);
}

static void test_a_report_tells_who_switched_it_off(void)
{
	struct offloads offloads = { .switches.off[OFFLOAD_UDP_GSO] = true };
	struct offload_report report;

	offloads_used(&offloads, OFFLOAD_UDP_GRO);
	offloads_set_error(&offloads, OFFLOAD_UDP_GSO, EIO);
	report = offloads_report(&offloads, OFFLOAD_UDP_GSO);
	assert(strcmp(report.name, "udp-gso") == 0 && strcmp(report.state, "off") == 0 && report.error[0] == '\0');
	offloads_set_error(&offloads, OFFLOAD_UDP_GRO, EINVAL);
	report = offloads_report(&offloads, OFFLOAD_UDP_GRO);
	assert(strcmp(report.state, "refused") == 0 && strcmp(report.error, "EINVAL") == 0 && report.n_used == 1);
	offloads_set_error(&offloads, OFFLOAD_UDP_GRO, 0);
	report = offloads_report(&offloads, OFFLOAD_UDP_GRO);
	assert(strcmp(report.state, "on") == 0 && report.error[0] == '\0');
}

/* paths */

static struct endpoint remote(const char *ip, uint16_t port)
{
	struct endpoint endpoint;

	assert(endpoint_parse_ip(ip, port, &endpoint) == 0);
	return endpoint;
}

static void test_a_refusal_concerns_its_remote_alone(void)
{
	struct refused_paths paths = { 0 };
	struct endpoint bad = remote("198.51.100.1", 1), same = remote("198.51.100.1", 2);
	struct endpoint good = remote("198.51.100.2", 1), good6 = remote("2001:db8::1", 1);

	assert(refused_paths_limit(&paths, &bad, 1000) == REFUSED_PATHS_ANY);
	refused_paths_note(&paths, &bad, 1451, 1000);
	assert(refused_paths_limit(&paths, &bad, 1000) == 1451 && refused_paths_limit(&paths, &same, 1001) == 1451);
	assert(refused_paths_limit(&paths, &good, 1000) == REFUSED_PATHS_ANY);
	assert(refused_paths_limit(&paths, &good6, 1000) == REFUSED_PATHS_ANY);
	refused_paths_note(&paths, &good6, 0, 1000);
	assert(refused_paths_limit(&paths, &good6, 1000) == 0 && refused_paths_limit(&paths, &bad, 1000) == 1451);
}

static void test_it_is_tried_again_after_a_minute_and_when_routes_change(void)
{
	static const uint32_t beginnings[] = { 0, 5, 1u << 24, (1u << 24) - 30, (1u << 24) - REFUSED_PATHS_RETRY_S,
					       UINT32_MAX - 10 };
	struct endpoint bad = remote("198.51.100.1", 1);

	for (size_t i = 0; i < ARRAY_LEN(beginnings); i++) {
		struct refused_paths paths = { 0 };
		uint32_t now = beginnings[i];
		refused_paths_note(&paths, &bad, 0, now);
		assert(refused_paths_limit(&paths, &bad, now) == 0);
		assert(refused_paths_limit(&paths, &bad, now + REFUSED_PATHS_RETRY_S - 1) == 0);
		/* at most a second late */
		assert(refused_paths_limit(&paths, &bad, now + REFUSED_PATHS_RETRY_S + 1) == REFUSED_PATHS_ANY);
		assert(refused_paths_limit(&paths, &bad, now + 30 * 24 * 3600) == REFUSED_PATHS_ANY);

		refused_paths_note(&paths, &bad, 0, now);
		refused_paths_forget(&paths);
		assert(refused_paths_limit(&paths, &bad, now) == REFUSED_PATHS_ANY);
	}
}

/* However many refuse: the table is as big as it is, and most are known. */
static void test_many_refusals_push_each_other_out_and_nothing_else(void)
{
	static struct refused_paths paths;
	uint32_t n_known = 0, n_wrong = 0;

	for (uint32_t i = 0; i < 10000; i++) {
		struct endpoint bad = endpoint_from_v4(0x0a000000 + i, 1);
		refused_paths_note(&paths, &bad, 0, 7);
		assert(refused_paths_limit(&paths, &bad, 7) == 0);
	}
	for (uint32_t i = 0; i < 10000; i++) {
		struct endpoint bad = endpoint_from_v4(0x0a000000 + i, 1), other = endpoint_from_v4(0x0b000000 + i, 1);
		n_known += refused_paths_limit(&paths, &bad, 7) == 0;
		n_wrong += refused_paths_limit(&paths, &other, 7) == 0;
	}
	assert(n_known > REFUSED_PATHS_N * 9 / 10 && n_known <= REFUSED_PATHS_N);
	assert(n_wrong <= 1); /* 24 bits of a hash */
}

int main(void)
{
	test_a_list_switches_on_exactly_what_it_names();
	test_what_is_no_list_is_refused_and_changes_nothing();
	test_every_set_is_printed_as_it_is_read();
	test_the_environment_wins();
	test_a_report_tells_who_switched_it_off();
	test_a_refusal_concerns_its_remote_alone();
	test_it_is_tried_again_after_a_minute_and_when_routes_change();
	test_many_refusals_push_each_other_out_and_nothing_else();
	puts("ok");
	return 0;
}
