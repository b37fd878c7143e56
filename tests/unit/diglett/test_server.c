/* The server and an agent of it, on the loopback: whom it lets in, for how long, and what is held until the gateway knows. */
#include "diglett_world.h"
#include "relay/diglett/handshake_places.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOTE_PORT "test $1 = remove || { echo \"$1 $2 $3 $4\" >$0.new; mv $0.new $0.told; }"

static void test_who_says_nothing_keeps_no_agent_out(void)
{
	int silent[HANDSHAKE_PLACES + 20];

	new_world(NULL);
	start_server();
	for (uint32_t i = 0; i < HANDSHAKE_PLACES + 20; i++) /* more than there are places, of many sources */
		silent[i] = connect_from(1 + i / 4, i / 4);
	AWAIT(counters().crowded_out >= 20);
	struct diglett_agent *agent = start_agent("app", world.token, 1);
	AWAIT(counters().agents_now == 1);
	assert(counters().crowded_out == 21 && counters().failed == 0);
	AWAIT(is_closed(silent[0]));
	for (uint32_t i = 0; i < HANDSHAKE_PLACES + 20; i++)
		close(silent[i]);
	AWAIT(counters().failed == HANDSHAKE_PLACES - 1);
	assert(counters().agents_now == 1);
	stop_agent(agent);
	end_world();
}

static void test_a_source_that_says_nothing_drives_out_only_itself(void)
{
	int silent[2 * HANDSHAKE_OF_SOURCE];

	new_world(NULL);
	start_server();
	const int other = connect_from(9, 9);
	for (int i = 0; i < 2 * HANDSHAKE_OF_SOURCE; i++)
		silent[i] = connect_from(1, 1);
	AWAIT(counters().crowded_out == HANDSHAKE_OF_SOURCE);
	for (int i = 0; i < HANDSHAKE_OF_SOURCE; i++)
		AWAIT(is_closed(silent[i]));
	assert(!is_closed(other) && !is_closed(silent[HANDSHAKE_OF_SOURCE]));
	for (int i = 0; i < 2 * HANDSHAKE_OF_SOURCE; i++)
		close(silent[i]);
	close(other);
	end_world();
}

static void test_a_source_that_comes_too_often_is_closed_at_once(void)
{
	int fds[DIGLETT_SOURCE_BURST + 20];

	new_world(NULL);
	start_server();
	const uint64_t begin = uv_hrtime();
	for (uint32_t i = 0; i < DIGLETT_SOURCE_BURST + 20; i++) {
		fds[i] = connect_from(1, 1);
		uv_run(&world.loop, UV_RUN_NOWAIT);
	}
	AWAIT(counters().too_often + counters().crowded_out + HANDSHAKE_OF_SOURCE >= DIGLETT_SOURCE_BURST + 20);
	const uint64_t refilled = (uv_hrtime() - begin) / 1000000 * DIGLETT_SOURCE_PER_S / 1000 + 1;
	assert(counters().too_often <= 20 && counters().too_often + refilled >= 20);
	struct diglett_agent *agent = start_agent("app", world.token, 1); /* of another source */
	AWAIT(counters().agents_now == 1);
	for (uint32_t i = 0; i < DIGLETT_SOURCE_BURST + 20; i++)
		close(fds[i]);
	stop_agent(agent);
	end_world();
}

static void test_a_token_has_so_many_agents_and_keeps_no_others_out(void)
{
	struct diglett_agent *agents[DIGLETT_MAX_AGENTS_OF_TOKEN + 1];
	char name[16];

	new_world(NULL);
	start_server();
	for (uint32_t i = 0; i < DIGLETT_MAX_AGENTS_OF_TOKEN; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		agents[i] = start_agent(name, world.token, 1);
	}
	AWAIT(counters().agents_now == DIGLETT_MAX_AGENTS_OF_TOKEN);
	agents[DIGLETT_MAX_AGENTS_OF_TOKEN] = start_agent("more", world.token, 1);
	AWAIT(counters().refused[DIGLETT_REFUSED_TOO_MANY] == 1);
	struct diglett_agent *other = start_agent("other", world.others_token, 1);
	AWAIT(counters().agents_now == DIGLETT_MAX_AGENTS_OF_TOKEN + 1);
	struct diglett_agent *same = start_agent("n0", world.token, 1);
	AWAIT(counters().replaced == 1); /* it needs no other place */
	for (uint32_t i = 0; i <= DIGLETT_MAX_AGENTS_OF_TOKEN; i++)
		stop_agent(agents[i]);
	stop_agent(other);
	stop_agent(same);
	end_world();
}

static void test_a_token_whose_agents_come_and_go_holds_so_many_ports(void)
{
	char name[16];

	new_world(SLOW_TO_FORGET);
	start_server();
	for (uint32_t i = 0; i < DIGLETT_MAX_HELD_OF_TOKEN; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		struct diglett_agent *agent = start_agent(name, world.token, 1);
		AWAIT(counters().agents_now == 1);
		stop_agent(agent);
		AWAIT(counters().agents_now == 0);
	}
	struct diglett_agent *agent = start_agent("more", world.token, 1);
	AWAIT(counters().refused[DIGLETT_REFUSED_TOO_MANY] == 1);
	struct diglett_agent *other = start_agent("other", world.others_token, 1);
	AWAIT(counters().agents_now == 1);
	let_forget();
	AWAIT(counters().agents_now == 2); /* it has tried again */
	stop_agent(agent);
	stop_agent(other);
	end_world();
}

static void test_a_byte_now_and_then_does_not_make_a_handshake_longer(void)
{
	new_world(NULL);
	world.options.handshake_ms = 300;
	start_server();
	const int slow = connect_from(1, 1);
	const uint64_t begin = uv_hrtime();
	while (!is_closed(slow)) {
		(void)send(slow, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		for (const uint64_t next = uv_hrtime() + 60000000; uv_hrtime() < next;)
			uv_run(&world.loop, UV_RUN_ONCE);
		assert(uv_hrtime() - begin < 2500000000u); /* it sends 49 bytes in 2.9 s: act 1 is not whole */
	}
	assert(counters().failed == 1);
	close(slow);
	end_world();
}

static void test_name_and_port_are_held_until_the_gateway_does_not_lead_there_any_more(void)
{
	uint8_t byte;

	new_world(SLOW_TO_FORGET);
	start_server();
	struct diglett_agent *agent = start_agent("app", world.token, 1);
	AWAIT(told_port() != 0);
	const uint16_t port = told_port();
	stop_agent(agent);
	AWAIT(counters().agents_now == 0);
	const int visitor = visit(port); /* nobody else has it; and who comes is reset, not left waiting */
	assert(visitor >= 0 && fcntl(visitor, F_SETFL, O_NONBLOCK) == 0);
	AWAIT(is_closed(visitor));
	assert(recv(visitor, &byte, 1, 0) <= 0);
	close(visitor);
	struct diglett_agent *other = start_agent("app", world.others_token, 1);
	AWAIT(counters().refused[DIGLETT_REFUSED_NAME_HELD] == 1);
	assert(counters().agents_now == 0);
	let_forget();
	AWAIT(!is_listening(port));
	AWAIT(counters().agents_now == 1); /* it has tried again */
	stop_agent(other);
	end_world();
}

static void test_after_a_crash_nobody_gets_a_port_before_the_gateway_leads_to_none_of_before(void)
{
	new_world(SLOW_TO_FORGET);
	write_file(world.notes, "old.demo\n", 0600);
	start_server();
	struct diglett_agent *agent = start_agent("app", world.token, 1);
	AWAIT(counters().refused[DIGLETT_REFUSED_GATEWAY] == 1);
	assert(counters().agents_now == 0);
	let_forget();
	AWAIT(counters().agents_now == 1); /* it has tried again */
	stop_agent(agent);
	end_world();
}

static void test_its_own_agent_comes_back_while_the_gateway_is_still_told(void)
{
	new_world(SLOW_TO_FORGET);
	start_server();
	struct diglett_agent *agent = start_agent("app", world.token, 1);
	AWAIT(told_port() != 0);
	const uint16_t port = told_port();
	stop_agent(agent);
	AWAIT(counters().agents_now == 0);
	agent = start_agent("app", world.token, 1);
	AWAIT(counters().agents_now == 1);
	assert(told_port() == port && is_listening(port)); /* the old one first, then the new one */
	let_forget();
	AWAIT(told_port() != port);
	AWAIT(!is_listening(port));
	assert(is_listening(told_port()));
	stop_agent(agent);
	end_world();
}

static void test_the_port_is_free_though_the_script_hangs(void)
{
	new_world(SLOW_TO_FORGET);
	world.options.script_limit_ms = 300;
	world.options.script_retry_ms = 10;
	start_server();
	struct diglett_agent *agent = start_agent("app", world.token, 1);
	AWAIT(told_port() != 0);
	const uint16_t port = told_port();
	stop_agent(agent);
	AWAIT(!is_listening(port));
	let_forget();
	end_world();
}

static void on_stopped(void *owner)
{
	*(bool *)owner = true;
}

static void test_an_agent_is_refused_while_what_the_gateway_is_told_cannot_be_noted(void)
{
	char folder[96], notes[112];

	new_world(NOTE_PORT);
	snprintf(folder, sizeof(folder), "%s/none", world.folder);
	snprintf(notes, sizeof(notes), "%s/notes", folder);
	world.options.notes_file = notes;
	world.options.script_retry_ms = 20;
	start_server();
	struct diglett_agent *agent = start_agent("app", world.token, 1);
	AWAIT(counters().refused[DIGLETT_REFUSED_GATEWAY] > 0);
	AWAIT(strstr(diglett_agent_status(agent).why, "cannot write down what it tells its gateway"));
	assert(counters().accepted == 0 && counters().gateway.runs == 0 && told_port() == 0);
	assert(mkdir(folder, 0700) == 0);
	AWAIT(counters().agents_now == 1 && told_port() != 0);
	assert(rename(folder, world.notes) == 0); /* it fails while agents are here: those that it knows stay */
	struct diglett_agent *other = start_agent("other", world.others_token, 1);
	AWAIT(counters().ended == 1 || counters().refused[DIGLETT_REFUSED_GATEWAY] > 1);
	assert(counters().agents_now == 1);
	assert(rename(world.notes, folder) == 0);
	stop_agent(other);
	stop_agent(agent);
	bool is_stopped = false;
	diglett_server_stop(world.server, on_stopped, &is_stopped);
	AWAIT(is_stopped);
	world.server = NULL;
	assert(unlink(notes) == 0 && rmdir(folder) == 0);
	end_world();
}

static void expect_no_start(const char *path)
{
	struct error error = { 0 };

	assert(diglett_server_start(&world.loop, &world.options, &world.server, &error) == -EPERM);
	assert(strstr(error.message, path) && strstr(error.message, "0644") && strstr(error.message, "chmod 600"));
}

static void test_tokens_and_keys_that_others_can_read_are_refused(void)
{
	new_world(NULL);
	assert(chmod(world.tokens, 0644) == 0);
	expect_no_start(world.tokens);
	assert(chmod(world.tokens, 0600) == 0 && chmod(world.key, 0644) == 0);
	expect_no_start(world.key);
	assert(chmod(world.key, 0600) == 0);
	start_server();
	assert(chmod(world.token, 0644) == 0);
	struct diglett_agent *agent = start_agent("app", world.token, 1);
	for (int i = 0; i < 20; i++)
		uv_run(&world.loop, UV_RUN_ONCE);
	assert(counters().accepted + counters().failed == 0); /* it does not even connect */
	assert(chmod(world.token, 0600) == 0);
	AWAIT(counters().agents_now == 1);
	stop_agent(agent);
	end_world();
}

/* A line that is taken away ends its agents, also when there is no descriptor to read the file by at first. */
static void test_tokens_that_could_not_be_read_for_a_moment_are_read_again(void)
{
	struct rlimit limit, none;

	new_world(NULL);
	start_server();
	struct diglett_agent *agent = start_agent("app", world.token, 1);
	AWAIT(counters().agents_now == 1);
	assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	none = limit;
	none.rlim_cur = 0;
	allow("other.demo", "*.demo");
	assert(setrlimit(RLIMIT_NOFILE, &none) == 0);
	AWAIT(diglett_server_tokens(world.server)->has_to_try_again);
	assert(counters().revoked == 0); /* the tokens stayed as they were */
	assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	AWAIT(counters().revoked == 1);
	assert(!diglett_server_tokens(world.server)->has_to_try_again);
	stop_agent(agent);
	end_world();
}

int main(void)
{
	test_who_says_nothing_keeps_no_agent_out();
	test_a_source_that_says_nothing_drives_out_only_itself();
	test_a_byte_now_and_then_does_not_make_a_handshake_longer();
	test_a_source_that_comes_too_often_is_closed_at_once();
	test_a_token_has_so_many_agents_and_keeps_no_others_out();
	test_a_token_whose_agents_come_and_go_holds_so_many_ports();
	test_name_and_port_are_held_until_the_gateway_does_not_lead_there_any_more();
	test_after_a_crash_nobody_gets_a_port_before_the_gateway_leads_to_none_of_before();
	test_its_own_agent_comes_back_while_the_gateway_is_still_told();
	test_the_port_is_free_though_the_script_hangs();
	test_an_agent_is_refused_while_what_the_gateway_is_told_cannot_be_noted();
	test_tokens_and_keys_that_others_can_read_are_refused();
	test_tokens_that_could_not_be_read_for_a_moment_are_read_again();
	return 0;
}
