#include "diglett_world.h"

#include "relay/diglett/diglett_keys.h"
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

struct world world;


static void path_of(char ret[96], const char *name)
{
	snprintf(ret, 96, "%s/%s", world.folder, name);
}

void write_file(const char *path, const char *text, mode_t mode)
{
	FILE *file = fopen(path, "w");

	assert(file && fputs(text, file) >= 0 && fclose(file) == 0 && chmod(path, mode) == 0);
}

void allow(const char *names, const char *others_names)
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

void new_world(const char *body)
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

void start_server(void)
{
	struct error error;

	assert(diglett_server_start(&world.loop, &world.options, &world.server, &error) == 0);
}

static void on_stopped(void *owner)
{
	(void)owner;
	world.n_stopping--;
}

void stop_agent(struct diglett_agent *agent)
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

void end_world(void)
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

struct diglett_agent *start_agent(const char *name, const char *token_file, uint16_t target_port)
{
	struct noise_curve curve;
	struct noise_secret secret;
	struct diglett_agent *agent;
	struct diglett_agent_options options = { .host = "127.0.0.1",
						 .port = diglett_server_port(world.server),
						 .token_file = token_file,
						 .extra = "",
						 .half_closed_ms = world.options.half_closed_ms,
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

struct diglett_server_counters counters(void)
{
	return diglett_server_counters(world.server);
}

int connect_from(uint32_t network, uint32_t host)
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

bool is_closed(int fd)
{
	uint8_t byte;
	const ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

uint16_t told_port(void)
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

int visit(uint16_t port)
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

bool is_listening(uint16_t port)
{
	const int fd = visit(port);

	close(fd);
	return fd >= 0;
}

void let_forget(void)
{
	char path[96];

	path_of(path, "script.go");
	write_file(path, "", 0600);
}

