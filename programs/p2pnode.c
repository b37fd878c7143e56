/* p2pnode: the daemon of every machine in a network. */
#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "common/cli.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/service.h"
#include "common/signal_watch.h"
#include "common/successor.h"
#include "node/config.h"
#include "node/daemon.h"
#include "node/local_api.h"
#include "node/wireguard/tun_steering.h"
#include "relay/frontdoor/front_door.h"
#include "relay/listen_sockets.h"

#define DEFAULT_STATE_DIR "/var/lib/p2pnode"
#define CHECK_LIMIT_MS	  30000

enum { EXIT_OK, EXIT_FAILED, EXIT_USAGE };

static const char *arg_config, *arg_state_dir = DEFAULT_STATE_DIR, *arg_socket = LOCAL_API_DEFAULT_PATH,
			       *arg_log_level;
static bool arg_check, arg_successor, arg_defaults, arg_allow_v1, arg_help, arg_version;

static const struct cli_option options[] = {
	{ 'c', "config", "PATH", "configuration file (" NODE_CONFIG_DEFAULT_PATH ", if there is one)", &arg_config,
	  NULL },
	{ 's', "state-dir", "PATH", "folder for keys, membership and map (" DEFAULT_STATE_DIR ")", &arg_state_dir,
	  NULL },
	{ 'S', "socket", "PATH", "socket for p2pctl (" LOCAL_API_DEFAULT_PATH ")", &arg_socket, NULL },
	{ 'l', "log-level", "LEVEL", "error, warning, info, debug or trace; wins over the file", &arg_log_level,
	  NULL },
	{ 0, "allow-v1", NULL, "of a diglett server: lets in agents of version 1, whose encryption hides nothing from who hears it",
	  NULL, &arg_allow_v1 },
	{ 0, "check-config", NULL, "only check the configuration, and say what is wrong with it", NULL, &arg_check },
	/* An older program, which would not hear signals that are blocked when it begins, does not know it and would not follow. */
	{ 0, "check-successor", NULL, "the same, by which SIGUSR2 finds out whether this program would start", NULL, &arg_successor },
	{ 0, "show-defaults", NULL, "print a configuration file with all defaults", NULL, &arg_defaults },
	{ 'h', "help", NULL, "this text", NULL, &arg_help },
	{ 'V', "version", NULL, "the version", NULL, &arg_version },
};

static void print_help(void)
{
	puts("Usage: p2pnode [OPTIONS]\n"
	     "\n"
	     "Runs this machine's node in the foreground: makes the overlay interface, keeps contact with\n"
	     "control and finds the best path to each peer. With a [public] section in its configuration it\n"
	     "serves relay and STUN to others as well. Talk to it with p2pctl(1); join a network with\n"
	     "\n"
	     "    p2pctl join LINK\n"
	     "\n"
	     "Options:");
	cli_print_options(stdout, options, ARRAY_LEN(options));
	puts("\n"
	     "SIGTERM and SIGINT end it; SIGUSR1 restarts the session with control, packets go on.\n"
	     "SIGUSR2 begins anew with the configuration and the program file as they are then, if that\n"
	     "would start, and keeps the front door's visitors.\n"
	     "Exit code 0: ended as asked, 1: could not run, 2: usage.\n"
	     "See p2pnode(8) and p2pnode.conf(5).");
}

/* The file named, or the default one if it exists, or the defaults. */
static int load_config(struct node_config *ret, struct error *reterr)
{
	int r;

	node_config_init(ret);
	r = node_config_load(arg_config ? arg_config : NODE_CONFIG_DEFAULT_PATH, ret, reterr);
	if (r == -ENOENT && !arg_config)
		r = 0;
	if (r == 0 && arg_log_level && log_level_parse(arg_log_level, &ret->log_level) != 0)
		r = error_set(reterr, -EINVAL, "--log-level: error, warning, info, debug or trace");
	if (r == 0 && arg_allow_v1 && !ret->diglett.is_server)
		r = error_set(reterr, -EINVAL, "--allow-v1 is for a diglett server: put a line '[diglett]' into the configuration");
	if (arg_allow_v1)
		ret->diglett.allow_v1 = true;
	return r;
}

/* The same, and nothing in it leads to itself. */
static int load_good_config(struct node_config *ret, struct error *reterr)
{
	int r = load_config(ret, reterr);

	if (r != 0)
		return r;
	const struct exposure_rings rings = node_config_rings(ret, front_door_leads_back);
	return node_config_check_rings(ret, &rings, reterr);
}

struct program {
	uv_loop_t loop;
	char *const *argv;
	struct node_daemon *daemon; /* NULL: ends, or has ended */
	struct signal_watch signals;
	struct successor successor;
	bool is_checking, is_asked_again; /* the successor is asked; and was to be once more */
	bool is_stopped;
};

/* The last handle is closed. A name look-up may still be under way; it is not waited for. */
static void on_signals_stopped(void *owner)
{
	struct program *program = owner;

	uv_stop(&program->loop);
}

static void end_if_all_has_ended(struct program *program)
{
	if (program->is_stopped && !program->is_checking)
		signal_watch_stop(&program->signals, on_signals_stopped);
}

static void on_stopped(void *owner)
{
	struct program *program = owner;

	program->is_stopped = true;
	end_if_all_has_ended(program);
}

static void stop(struct program *program)
{
	struct node_daemon *daemon = program->daemon;

	program->daemon = NULL;
	node_daemon_stop(daemon, on_stopped, program);
}

static void begin_to_end(struct program *program, int number)
{
	log_info("node", "signal %d: ending", number);
	service_cancel_restart();
	service_notify("STOPPING=1");
	if (program->is_checking)
		successor_cancel(&program->successor);
	if (program->daemon)
		stop(program);
}

static void on_checked(void *owner, int result, const char *why);

/* Not as a program that would not start, or with a configuration that is not good for it: nobody would serve who is here. */
static void ask_successor(struct program *program)
{
	log_info("node", "asking %s %s", program->argv[0], program->is_checking ? "once more when it has answered" : "whether it would start");
	program->is_asked_again = program->is_checking;
	if (program->is_checking)
		return;
	program->is_checking = true;
	successor_check(&program->successor, &program->loop, program->argv, "--check-successor", CHECK_LIMIT_MS, on_checked, program);
}

static void on_checked(void *owner, int result, const char *why)
{
	struct program *program = owner;

	program->is_checking = false;
	if (!program->daemon) {
		end_if_all_has_ended(program);
	} else if (program->is_asked_again) { /* it may be another since */
		ask_successor(program);
	} else if (result == 0) {
		log_info("node", "beginning anew");
		service_begin_restart();
		stop(program);
	} else {
		log_error("node", "all stays as it is: %s", why);
	}
}

static void on_signal(void *owner, int number)
{
	struct program *program = owner;

	if (number == SIGTERM || number == SIGINT)
		begin_to_end(program, number);
	else if (number == SIGUSR2 && program->daemon)
		ask_successor(program);
	else if (number == SIGUSR1 && program->daemon)
		node_daemon_restart_session(program->daemon);
}

static void on_open_handle(uv_handle_t *handle, void *arg)
{
	log_error("node", "bug: a %s handle was left open", uv_handle_type_name(handle->type));
}

/* Only returns if it cannot. */
static int follow_oneself(char *const argv[])
{
	struct error error;

	tun_steering_hand_over();
	int r = service_restart(argv, &error);
	log_error("node", "%s", error.message);
	service_cancel_restart(); /* systemd may start it again */
	return r == 0 ? EXIT_OK : EXIT_FAILED;
}

/* Runs until all is closed, and as often as it is to begin anew; returns the exit code. */
static int run_loop(uv_loop_t *loop, int exit_code, char *const argv[])
{
	uv_run(loop, UV_RUN_DEFAULT);
	const bool is_closed = uv_loop_close(loop) == 0;
	if (!is_closed)
		uv_walk(loop, on_open_handle, NULL);
	if (service_is_restarting())
		exit_code = follow_oneself(argv);
	if (is_closed)
		return exit_code;
	fflush(NULL);
	_exit(exit_code); /* exit() would wait for the look-up's thread */
}

static int run(const struct node_config *config, char *const argv[])
{
	static const unsigned kept[] = { CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE };
	static const int numbers[] = { SIGTERM, SIGINT, SIGUSR1, SIGUSR2 };
	struct program program = { .argv = argv };
	int sockets[LISTEN_SOCKETS_MAX];
	size_t n_sockets = service_take_sockets(sockets, LISTEN_SOCKETS_MAX);
	struct error error;

	uv_loop_init(&program.loop);
	if (signal_watch_start(&program.signals, &program.loop, numbers, ARRAY_LEN(numbers), on_signal, &program, &error) != 0) {
		fprintf(stderr, "p2pnode: %s\n", error.message);
		return EXIT_FAILED;
	}
	signal(SIGPIPE, SIG_IGN);
	service_raise_file_limit();
	tun_steering_prepare(); /* it needs CAP_BPF, and nothing afterwards does */
	if (service_keep_capabilities(kept, ARRAY_LEN(kept), &error) != 0)
		log_warning("node", "%s", error.message);
	const struct node_daemon_options daemon = { .loop = &program.loop,
						    .config = config,
						    .state_dir = arg_state_dir,
						    .socket = arg_socket,
						    .public_sockets = sockets,
						    .n_public_sockets = n_sockets };
	int r = node_daemon_start(&daemon, &program.daemon, &error);
	if (r != 0) {
		fprintf(stderr, "p2pnode: %s\n", error.message);
		program.daemon = NULL;
		signal_watch_stop(&program.signals, NULL);
	} else {
		service_notify("READY=1");
	}
	return run_loop(&program.loop, r == 0 ? EXIT_OK : EXIT_FAILED, argv);
}

int main(int argc, char *argv[])
{
	const struct cli cli = { .options = options, .n_options = ARRAY_LEN(options) };
	struct node_config config;
	struct error error;
	int n;

	if (cli_parse(&cli, argc - 1, argv + 1, &n, &error) != 0) {
		fprintf(stderr, "p2pnode: %s; see p2pnode --help\n", error.message);
		return EXIT_USAGE;
	}
	if (n != 0) {
		fprintf(stderr, "p2pnode: unexpected argument '%s'; see p2pnode --help\n", cli_show(argv[1]).s);
		return EXIT_USAGE;
	}
	if (arg_help) {
		print_help();
		return EXIT_OK;
	}
	if (arg_version) {
		puts("p2pnode " P2P_VERSION);
		return EXIT_OK;
	}
	if (arg_defaults) {
		char *text = node_config_defaults_text();
		fputs(text, stdout);
		free(text);
		return EXIT_OK;
	}
	arg_check = arg_check || arg_successor;
	if ((arg_check ? load_good_config : load_config)(&config, &error) != 0) {
		fprintf(stderr, "p2pnode: %s\n", error.message);
		return EXIT_FAILED;
	}
	if (arg_check) {
		puts("configuration is good");
		return EXIT_OK;
	}
	if (sodium_init() < 0)
		abort();
	log_set_level(config.log_level);
	return run(&config, argv);
}
