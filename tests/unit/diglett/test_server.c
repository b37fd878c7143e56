/* The server and an agent of it, on the loopback: whom it lets in, for how long, and what is held until the gateway knows. */
#include "relay/diglett/diglett_agent.h"
#include "relay/diglett/diglett_keys.h"
#include "relay/diglett/diglett_server.h"
#include "relay/diglett/handshake_places.h"
#include "relay/diglett/token_list.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKEN	     "a-token-that-nobody-guesses"
#define OTHERS_TOKEN "a-token-of-somebody-else"

static struct world {
	char folder[64], script[96], notes[96], tokens[96], key[96], token[96], others_token[96];
	uv_loop_t loop;
	uv_timer_t poke; /* so that what is awaited is looked at */
	struct diglett_server_options options;
	struct diglett_server *server;
	uint32_t n_stopping;
} world;

#define AWAIT(condition) \
	do \
		uv_run(&world.loop, UV_RUN_ONCE); \
	while (!(condition)) /* the test's own time limit ends one that never comes */

static void path_of(char ret[96], const char *name)
{
	snprintf(ret, 96, "%s/%s", world.folder, name);
}

static void write_file(const char *path, const char *text, mode_t mode)
{
	FILE *file = fopen(path, "w");

	assert(file && fputs(text, file) >= 0 && fclose(file) == 0 && chmod(path, mode) == 0);
}

static void allow(const char *names, const char *others_names)
{
	uint8_t hash[TOKEN_HASH_LEN], others[TOKEN_HASH_LEN];
	char hex[2][2 * TOKEN_HASH_LEN + 1], text[512];

	token_hash(TOKEN, hash);
	token_hash(OTHERS_TOKEN, others);
	sodium_bin2hex(hex[0], sizeof(hex[0]), hash, sizeof(hash));
	sodium_bin2hex(hex[1], sizeof(hex[1]), others, sizeof(others));
	snprintf(text, sizeof(text), "%s %s\n%s %s\n", hex[0], names, hex[1], others_names);
	write_file(world.tokens, text, 0600);
}

static void on_poke(uv_timer_t *timer)
{
	(void)timer;
}

/* body: of the gateway's script; NULL: there is none. */
static void new_world(const char *body)
{
	assert(sodium_init() >= 0);
	memset(&world, 0, sizeof(world));
	snprintf(world.folder, sizeof(world.folder), "/tmp/p2p-diglett-XXXXXX");
	assert(mkdtemp(world.folder));
	path_of(world.script, "script");
	path_of(world.notes, "notes");
	path_of(world.tokens, "tokens");
	path_of(world.key, "key");
	path_of(world.token, "token");
	path_of(world.others_token, "others_token");
	allow("*.demo", "*.demo");
	write_file(world.token, TOKEN "\n", 0600);
	write_file(world.others_token, OTHERS_TOKEN "\n", 0600);
	if (body) {
		char text[512];
		snprintf(text, sizeof(text), "#!/bin/sh\n%s\n", body);
		write_file(world.script, text, 0755);
	}
	world.options = (struct diglett_server_options){ .listen = endpoint_from_v4(0x7f000001, 0),
							 .domain = "demo",
							 .key_file = world.key,
							 .tokens_file = world.tokens,
							 .script = body ? world.script : "",
							 .notes_file = world.notes };
	assert(uv_loop_init(&world.loop) == 0);
	uv_timer_init(&world.loop, &world.poke);
	uv_timer_start(&world.poke, on_poke, 5, 5);
}

static void start_server(void)
{
	struct error error;

	assert(diglett_server_start(&world.loop, &world.options, &world.server, &error) == 0);
}

static void on_stopped(void *owner)
{
	(void)owner;
	world.n_stopping--;
}

static void stop_agent(struct diglett_agent *agent)
{
	world.n_stopping++;
	diglett_agent_stop(agent, on_stopped, NULL);
	AWAIT(world.n_stopping == 0);
}

static void remove_file(const char *name)
{
	char path[96];

	path_of(path, name);
	(void)unlink(path);
}

static void end_world(void)
{
	if (world.server) {
		world.n_stopping++;
		diglett_server_stop(world.server, on_stopped, NULL);
		AWAIT(world.n_stopping == 0);
	}
	uv_close((uv_handle_t *)&world.poke, NULL);
	uv_run(&world.loop, UV_RUN_DEFAULT);
	assert(uv_loop_close(&world.loop) == 0);
	for (const char **name = (const char *[]){ "script", "notes", "tokens", "key", "token", "others_token", "script.go",
						   "script.told", NULL };
	     *name; name++)
		remove_file(*name);
	assert(rmdir(world.folder) == 0);
}

static struct diglett_agent *start_agent(const char *name, const char *token_file, uint16_t target_port)
{
	struct noise_curve curve;
	struct noise_secret secret;
	struct diglett_agent *agent;
	struct diglett_agent_options options = { .host = "127.0.0.1",
						 .port = diglett_server_port(world.server),
						 .token_file = token_file,
						 .extra = "",
						 .n_ports = 1 };
	struct error error;

	assert(diglett_curve_init(&curve) == 0 && diglett_key_load(world.key, &curve, &secret, &error) == 0);
	assert(noise_public_of(&curve, &secret, &options.server_key));
	noise_curve_deinit(&curve);
	assert(diglett_name_parse(name, strlen(name), &options.names[0]) == 0);
	options.targets[0] = endpoint_from_v4(0x7f000001, target_port);
	assert(diglett_agent_start(&world.loop, &options, &agent, &error) == 0);
	return agent;
}

static struct diglett_server_counters counters(void)
{
	return diglett_server_counters(world.server);
}

/* From 127.NETWORK.HOST.1: each network and host is a source of its own. */
static int connect_from(uint32_t network, uint32_t host)
{
	struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000001 | network << 16 | host << 8) };
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				  .sin_port = htons(diglett_server_port(world.server)) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(fd >= 0 && bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0);
	assert(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
	assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	return fd;
}

static bool is_closed(int fd)
{
	uint8_t byte;
	const ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

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

static uint16_t told_port(void)
{
	char path[96], word[8];
	unsigned port = 0;

	path_of(path, "script.told");
	FILE *file = fopen(path, "r");
	if (file && fscanf(file, "%7s %*s %*s %u", word, &port) != 2)
		port = 0;
	if (file)
		fclose(file);
	return (uint16_t)port;
}

static int visit(uint16_t port)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(fd >= 0);
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static bool is_listening(uint16_t port)
{
	const int fd = visit(port);

	close(fd);
	return fd >= 0;
}

/* A script that notes the port, and forgets a name only when the file GO is there. */
#define SLOW_TO_FORGET \
	"if test $1 = add; then echo \"$1 $2 $3 $4\" >$0.new; mv $0.new $0.told; else while ! test -e $0.go; do sleep 0.01; done; fi"

static void let_forget(void)
{
	char path[96];

	path_of(path, "script.go");
	write_file(path, "", 0600);
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
	AWAIT(counters().refused == 1);
	assert(counters().agents_now == 0);
	let_forget();
	AWAIT(!is_listening(port));
	AWAIT(counters().agents_now == 1); /* it has tried again */
	stop_agent(other);
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

int main(void)
{
	test_who_says_nothing_keeps_no_agent_out();
	test_a_source_that_says_nothing_drives_out_only_itself();
	test_a_byte_now_and_then_does_not_make_a_handshake_longer();
	test_name_and_port_are_held_until_the_gateway_does_not_lead_there_any_more();
	test_its_own_agent_comes_back_while_the_gateway_is_still_told();
	test_the_port_is_free_though_the_script_hangs();
	test_tokens_and_keys_that_others_can_read_are_refused();
	return 0;
}
