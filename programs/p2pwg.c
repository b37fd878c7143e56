/* p2pwg: a userspace WireGuard for one interface, driven by wg(8) and wg-quick(8). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "common/log.h"
#include "common/macros.h"
#include "node/wireguard/lanes.h"
#include "node/wireguard/wg_daemon.h"

static const char usage_text[] =
	"Usage: p2pwg [-f] INTERFACE\n"
	"\n"
	"Creates the network interface INTERFACE and runs WireGuard on it until the interface is\n"
	"deleted, its socket /var/run/wireguard/INTERFACE.sock is removed, or SIGTERM or SIGINT comes.\n"
	"SIGUSR1 logs the state of the offloads, and what was dropped and why; SIGUSR2 begins a new\n"
	"session with every peer.\n"
	"Configure it with wg(8), or let wg-quick(8) do all of it:\n"
	"\n"
	"    WG_QUICK_USERSPACE_IMPLEMENTATION=p2pwg wg-quick up wg0\n"
	"\n"
	"Options:\n"
	"  -f, --foreground  stay in the foreground; else p2pwg returns when the interface is ready\n"
	"  --no-tun-gso-read, --no-tun-gro-write, --no-udp-gso, --no-udp-gro\n"
	"                    without this way of moving many packets at once\n"
	"  --lanes N         threads that move packets, 1 to 16; else as many as suit the machine\n"
	"  -h, --help        this text\n"
	"  -V, --version     the version\n"
	"\n"
	"Environment:\n"
	"  LOG_LEVEL                error, warning, info, debug (or verbose), trace, silent\n"
	"  WG_PROCESS_FOREGROUND=1  as -f\n"
	"  P2P_OFFLOADS             all, none, or those to be used: tun-gso-read,tun-gro-write,\n"
	"                           udp-gso,udp-gro; wins over the options\n";

#define EXIT_USAGE	  2
#define OPTION_LANES	  255
#define OPTION_NO_OFFLOAD 256 /* plus the kind */

struct program {
	uv_loop_t loop;
	struct wg_daemon *daemon;
	uv_signal_t signals[4];
};

static void on_signal_closed(uv_handle_t *handle)
{
	(void)handle;
}

static void on_ended(void *arg)
{
	struct program *program = arg;

	program->daemon = NULL;
	for (size_t i = 0; i < ARRAY_LEN(program->signals); i++)
		uv_close((uv_handle_t *)&program->signals[i], on_signal_closed);
}

static void on_signal(uv_signal_t *signal, int number)
{
	struct program *program = signal->data;

	if (!program->daemon)
		return;
	if (number == SIGUSR1)
		wg_daemon_log(program->daemon);
	else if (number == SIGUSR2)
		wg_daemon_rekey(program->daemon);
	else
		wg_daemon_stop(program->daemon);
}

static void catch_signals(struct program *program)
{
	static const int numbers[] = { SIGTERM, SIGINT, SIGUSR1, SIGUSR2 };

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < ARRAY_LEN(program->signals); i++) {
		uv_signal_init(&program->loop, &program->signals[i]);
		program->signals[i].data = program;
		uv_signal_start(&program->signals[i], on_signal, numbers[i]);
	}
}

static void set_log_level(void)
{
	const char *text = getenv("LOG_LEVEL");
	enum log_level level = LOG_LEVEL_INFO;

	if (!text)
		return;
	if (strcmp(text, "verbose") == 0)
		text = "debug";
	if (strcmp(text, "silent") == 0)
		text = "error";
	if (log_level_parse(text, &level) != 0)
		log_warning("p2pwg", "LOG_LEVEL=%s is no level; taking info", text);
	log_set_level(level);
}

/* The child of the background form: ready_fd tells the parent. */
static void detach(int ready_fd)
{
	int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (chdir("/") != 0 || null_fd < 0)
		abort();
	dup2(null_fd, STDIN_FILENO);
	dup2(null_fd, STDOUT_FILENO);
	dup2(null_fd, STDERR_FILENO);
	if (null_fd > STDERR_FILENO)
		close(null_fd);
	(void)!write(ready_fd, "", 1);
	close(ready_fd);
}

/* ready_fd: -1 in the foreground. */
static int run(const char *ifname, const struct wg_daemon_options *options, int ready_fd)
{
	struct program program = { 0 };
	struct error error = { 0 };

	uv_loop_init(&program.loop);
	int r = wg_daemon_start(&program.loop, ifname, options, on_ended, &program, &program.daemon, &error);
	if (r == 0) {
		catch_signals(&program);
		log_info("p2pwg", "interface %s is ready", ifname);
		if (ready_fd >= 0)
			detach(ready_fd);
	} else {
		fprintf(stderr, "p2pwg: %s\n", error.message);
	}
	uv_run(&program.loop, UV_RUN_DEFAULT);
	uv_loop_close(&program.loop);
	return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Parent: waits until the child says that it is ready, or ends. */
static int wait_for_child(pid_t child, int ready_fd)
{
	char byte;
	int status = 0;
	ssize_t n;

	do
		n = read(ready_fd, &byte, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		return EXIT_SUCCESS;
	waitpid(child, &status, 0);
	return EXIT_FAILURE;
}

static int run_in_background(const char *ifname, const struct wg_daemon_options *options)
{
	int ready[2];

	if (pipe2(ready, O_CLOEXEC) != 0) {
		perror("p2pwg");
		return EXIT_FAILURE;
	}
	pid_t child = fork();
	if (child < 0) {
		perror("p2pwg");
		return EXIT_FAILURE;
	}
	if (child > 0) {
		close(ready[1]);
		return wait_for_child(child, ready[0]);
	}
	close(ready[0]);
	setsid();
	return run(ifname, options, ready[1]);
}

struct arguments {
	const char *ifname;
	bool in_foreground;
	struct wg_daemon_options options;
};

static int read_lanes(const char *text, unsigned *ret)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*text == '\0' || *end != '\0' || n < 1 || n > LANES_MAX)
		return fprintf(stderr, "p2pwg: --lanes %s: a number from 1 to %d is needed\n", text, LANES_MAX), -1;
	*ret = (unsigned)n;
	return 0;
}

/* 0, or -1 with the exit code. */
static int read_arguments(int argc, char *argv[], struct arguments *ret, int *ret_exit)
{
	static const struct option options[] = {
		{ "foreground", no_argument, NULL, 'f' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ "lanes", required_argument, NULL, OPTION_LANES },
		{ "no-tun-gso-read", no_argument, NULL, OPTION_NO_OFFLOAD + OFFLOAD_TUN_GSO_READ },
		{ "no-tun-gro-write", no_argument, NULL, OPTION_NO_OFFLOAD + OFFLOAD_TUN_GRO_WRITE },
		{ "no-udp-gso", no_argument, NULL, OPTION_NO_OFFLOAD + OFFLOAD_UDP_GSO },
		{ "no-udp-gro", no_argument, NULL, OPTION_NO_OFFLOAD + OFFLOAD_UDP_GRO },
		{ 0 },
	};
	int c;

	*ret_exit = EXIT_SUCCESS;
	while ((c = getopt_long(argc, argv, "fhV", options, NULL)) != -1) {
		if (c == 'f') {
			ret->in_foreground = true;
		} else if (c >= OPTION_NO_OFFLOAD) {
			ret->options.offloads.off[c - OPTION_NO_OFFLOAD] = true;
		} else if (c == OPTION_LANES && read_lanes(optarg, &ret->options.n_lanes) == 0) {
			continue;
		} else if (c == 'h') {
			return fputs(usage_text, stdout), -1;
		} else if (c == 'V') {
			return puts("p2pwg " P2P_VERSION), -1;
		} else {
			*ret_exit = EXIT_USAGE;
			return fputs("Try 'p2pwg --help'.\n", stderr), -1;
		}
	}
	ret->ifname = argv[optind];
	if (argc - optind == 1)
		return 0;
	*ret_exit = EXIT_USAGE;
	return fputs("p2pwg: exactly one INTERFACE is needed. Try 'p2pwg --help'.\n", stderr), -1;
}

int main(int argc, char *argv[])
{
	const char *foreground_env = getenv("WG_PROCESS_FOREGROUND");
	struct arguments arguments = { .in_foreground =
					       foreground_env && strcmp(foreground_env, "1") == 0 };
	struct error error;
	int exit_code;

	if (read_arguments(argc, argv, &arguments, &exit_code) != 0)
		return exit_code;
	if (offload_switches_from_environment(&arguments.options.offloads, &error) != 0) {
		fprintf(stderr, "p2pwg: $P2P_OFFLOADS: %s. Try 'p2pwg --help'.\n", error.message);
		return EXIT_USAGE;
	}
	set_log_level();
	if (sodium_init() < 0) {
		fputs("p2pwg: the system gives no random numbers\n", stderr);
		return EXIT_FAILURE;
	}
	return arguments.in_foreground ? run(arguments.ifname, &arguments.options, -1) :
					 run_in_background(arguments.ifname, &arguments.options);
}
