/*
 * p2pturn: a way round for p2pnode by a TURN server (node/turn/turn_client.h); p2pnode starts it when [turn] is
 * configured. A program of its own, because libnice brings forty libraries along that a node has no use for; and
 * what these read of strangers they read with no capability at all.
 *
 *   standard input    permit 203.0.113.9              who is at this address may reach the node; its end ends p2pturn
 *                     network                         addresses or routes of this machine changed
 *   standard output   relayed 198.51.100.5:49152      where the node is reached by TURN; "relayed -": nowhere any more
 */
#include "common/cli.h"
#include "common/file.h"
#include "common/log.h"
#include "common/service.h"
#include "node/turn/turn_client.h"

#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#define EXIT_USAGE   2
#define MAX_LINE     128
#define MAX_PASSWORD 512

struct program {
	uv_loop_t loop;
	uv_pipe_t input;
	uv_signal_t signals[2];
	struct turn_client *client;
	char line[MAX_LINE];
	size_t len; /* of it; MAX_LINE: too long, up to its end nothing is read */
};

static void on_relayed(void *owner, const struct endpoint *relayed)
{
	printf("relayed %s\n", endpoint_is_none(relayed) ? "-" : endpoint_text(relayed).s);
	fflush(stdout);
}

static void on_ended(void *owner)
{
	struct program *program = owner;

	uv_close((uv_handle_t *)&program->input, NULL);
	for (size_t i = 0; i < ARRAY_LEN(program->signals); i++)
		uv_close((uv_handle_t *)&program->signals[i], NULL);
}

static void stop(struct program *program)
{
	if (program->client)
		turn_client_close(program->client, on_ended, program);
	program->client = NULL;
}

static void on_signal(uv_signal_t *handle, int number)
{
	stop(handle->data);
}

static void take_line(struct program *program)
{
	static const char word[] = "permit ";
	struct endpoint peer;

	if (program->client && strcmp(program->line, "network") == 0)
		turn_client_network_changed(program->client);
	else if (program->client && strncmp(program->line, word, strlen(word)) == 0 &&
		 endpoint_parse_ip(program->line + strlen(word), 0, &peer) == 0)
		turn_client_permit(program->client, &peer);
}

static void take(struct program *program, const char *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (bytes[i] == '\n' && program->len < MAX_LINE) {
			program->line[program->len] = '\0';
			take_line(program);
		}
		if (bytes[i] == '\n')
			program->len = 0;
		else if (program->len < MAX_LINE - 1)
			program->line[program->len++] = bytes[i];
		else
			program->len = MAX_LINE;
	}
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
	static char bytes[4096];

	*ret = uv_buf_init(bytes, sizeof(bytes));
}

static void on_input(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
	if (n < 0)
		stop(stream->data);
	else
		take(stream->data, buffer->base, (size_t)n);
}

static void listen_to_owner(struct program *program)
{
	static const int numbers[] = { SIGTERM, SIGINT };

	signal(SIGPIPE, SIG_IGN);
	uv_pipe_init(&program->loop, &program->input, 0);
	program->input.data = program;
	if (uv_pipe_open(&program->input, 0) != 0 ||
	    uv_read_start((uv_stream_t *)&program->input, on_alloc, on_input) != 0)
		log_warning("turn", "standard input cannot be read: nobody will be let in");
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		uv_signal_init(&program->loop, &program->signals[i]);
		program->signals[i].data = program;
		uv_signal_start(&program->signals[i], on_signal, numbers[i]);
	}
}

/* The first line. */
static int read_password(const char *path, char **ret, struct error *reterr)
{
	size_t len;
	int r = file_read(path, MAX_PASSWORD, ret, &len, reterr);

	if (r != 0)
		return r;
	(*ret)[strcspn(*ret, "\r\n")] = '\0';
	return 0;
}

static int run(struct turn_client_options *options, const char *password_file)
{
	struct program program = { 0 };
	struct error error = { 0 };
	char *password = NULL;

	if (read_password(password_file, &password, &error) != 0) {
		log_error("turn", "%s", error.message);
		return EXIT_FAILURE;
	}
	if (service_give_up_all(&error) != 0) {
		log_error("turn", "%s", error.message);
		sodium_memzero(password, strlen(password));
		free(password);
		return EXIT_FAILURE;
	}
	uv_loop_init(&program.loop);
	options->loop = &program.loop;
	options->password = password;
	options->owner = &program;
	options->relayed = on_relayed;
	program.client = turn_client_new(options);
	sodium_memzero(password, strlen(password));
	free(password);
	listen_to_owner(&program);
	uv_run(&program.loop, UV_RUN_DEFAULT);
	return uv_loop_close(&program.loop) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char *argv[])
{
	const char *server = NULL, *user = NULL, *password_file = NULL, *port = NULL, *level = "info";
	bool help = false;
	const struct cli_option table[] = {
		{ 0, "server", "IP:PORT", "the TURN server", &server, NULL },
		{ 0, "user", "NAME", "who asks", &user, NULL },
		{ 0, "password-file", "PATH", "its first line is the password", &password_file, NULL },
		{ 0, "node-port", "PORT", "UDP port of the node on this machine", &port, NULL },
		{ 0, "log-level", "LEVEL", "error, warning, info, debug or trace", &level, NULL },
		{ 'h', "help", NULL, "this text", NULL, &help },
	};
	const struct cli cli = { .options = table, .n_options = ARRAY_LEN(table) };
	struct turn_client_options options = { 0 };
	enum log_level log_level = LOG_LEVEL_INFO;
	struct error error = { 0 };
	long node_port = 0;
	int n = 0;

	if (sodium_init() < 0)
		abort();
	int r = cli_parse(&cli, argc - 1, argv + 1, &n, &error);
	if (r == 0 && help) {
		printf("Usage: p2pturn OPTIONS\n");
		cli_print_options(stdout, table, ARRAY_LEN(table));
		return EXIT_SUCCESS;
	}
	if (r == 0)
		r = cli_number("--node-port", port ? port : "", 1, 65535, &node_port, &error);
	if (r != 0 || n != 0 || !server || !user || !password_file || endpoint_parse(server, &options.server) != 0 ||
	    options.server.port == 0 || log_level_parse(level, &log_level) != 0) {
		fprintf(stderr, "%s\nUsage: p2pturn OPTIONS\n", error.message);
		cli_print_options(stderr, table, ARRAY_LEN(table));
		return EXIT_USAGE;
	}
	log_set_level(log_level);
	options.user = user;
	options.node_port = (uint16_t)node_port;
	return run(&options, password_file);
}
