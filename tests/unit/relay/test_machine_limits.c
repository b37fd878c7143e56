/* What a machine lacks for a relay is told, with the remedy; what it has is not. */
#include "relay/machine_limits.h"
#include "world.h"

#include <stdio.h>
#include <string.h>

static const struct machine_wants wants = {
	.tls_clients = 16384, .udp_clients = 131072, .udp_buffer = 4 << 20, .udp_send_buffer = 4 << 20, .tls_port = 443, .stun_port = 3478
};
static const struct machine_facts good = { .open_files = 1048576,
					   .receive_buffer = 4 << 20,
					   .send_buffer = 4 << 20,
					   .conntrack_max = 262144,
					   .lowest_port = 1024,
					   .may_bind_low = true };

static void expect_warnings(const struct machine_facts *facts, const struct machine_wants *what, uint32_t n,
			    const char *has)
{
	struct machine_warning warnings[MACHINE_MAX_WARNINGS];

	EXPECT(machine_limits_judge(facts, what, warnings) == n);
	EXPECT(n == 0 || strstr(warnings[0].text, has));
	for (uint32_t i = 0; i < n; i++)
		EXPECT(strlen(warnings[i].text) < sizeof(warnings[i].text) - 1); /* none is cut */
}

static void test_a_machine_with_enough_of_all_gets_no_warning(void)
{
	struct machine_facts facts = good;

	expect_warnings(&facts, &wants, 0, "");
	facts.conntrack_max = 0; /* no firewall */
	facts.receive_buffer = facts.send_buffer = 0; /* not known */
	expect_warnings(&facts, &wants, 0, "");
}

static void test_each_limit_is_named_with_its_remedy(void)
{
	struct machine_facts facts = good;

	facts.open_files = 1024;
	expect_warnings(&facts, &wants, 1, "room for 768 clients over TLS instead of 16384: put LimitNOFILE=16640");
	facts = good;
	facts.receive_buffer = 208 << 10;
	expect_warnings(&facts, &wants, 1, "receive buffer of 208 KiB instead of 4096");
	expect_warnings(&facts, &wants, 1, "sysctl -w net.core.rmem_max=4194304");
	facts = good;
	facts.send_buffer = 208 << 10;
	expect_warnings(&facts, &wants, 1, "sysctl -w net.core.wmem_max=4194304");
	facts = good;
	facts.conntrack_max = 65536;
	expect_warnings(&facts, &wants, 1, "at most 65536 connections");
	facts = good;
	facts.may_bind_low = false;
	expect_warnings(&facts, &wants, 1, "TCP port 443 needs CAP_NET_BIND_SERVICE");
	facts.lowest_port = 80;
	expect_warnings(&facts, &wants, 0, "");
}

static void test_ports_that_are_open_already_need_nothing(void)
{
	struct machine_facts facts = good;
	struct machine_wants open = wants;

	facts.may_bind_low = false;
	open.has_sockets = true;
	expect_warnings(&facts, &open, 0, "");
}

static void test_all_that_can_be_wrong_at_once_is_told(void)
{
	const struct machine_facts bad = { .open_files = 1, .receive_buffer = 1, .send_buffer = 1,
					   .conntrack_max = 1, .lowest_port = 65535 };

	expect_warnings(&bad, &wants, MACHINE_MAX_WARNINGS, "room for 0 clients");
}

static void test_this_machine_can_be_read(void)
{
	struct machine_facts facts;

	machine_limits_read(&wants, &facts);
	EXPECT(facts.open_files > 0 && facts.receive_buffer > 0 && facts.lowest_port <= 65535);
}

int main(void)
{
	test_a_machine_with_enough_of_all_gets_no_warning();
	test_each_limit_is_named_with_its_remedy();
	test_ports_that_are_open_already_need_nothing();
	test_all_that_can_be_wrong_at_once_is_told();
	test_this_machine_can_be_read();
	puts("ok");
	return 0;
}
