/* p2pcontrol: the control service of a network. */
#include "common/cli.h"
#include "common/error.h"
#include "common/log.h"
#include "common/macros.h"
#include "common/service.h"
#include "control/control.h"

#include <cap-ng.h>
#include <dirent.h>
#include <fcntl.h>
#include <errno.h>
#include <linux/capability.h>
#include <pwd.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define DEFAULT_STATE_DIR "/var/lib/p2pcontrol"
#define DEFAULT_PORT      8443
#define DEFAULT_KEY_LIFE  "24h"

enum { EXIT_OK, EXIT_FAILED, EXIT_USAGE };

static const char *arg_state_dir = DEFAULT_STATE_DIR, *arg_log_level, *arg_name, *arg_address,
		  *arg_prefix4, *arg_prefix6, *arg_listen, *arg_user, *arg_expires, *arg_tag;
static bool arg_help, arg_version, arg_reusable, arg_relay;

static const struct cli_option common_options[] = {
	{ 's', "state-dir", "PATH",
	  "folder of the network's store and keys (" DEFAULT_STATE_DIR ")", &arg_state_dir, NULL },
	{ 'l', "log-level", "LEVEL", "error, warning, info, debug or trace (info)", &arg_log_level,
	  NULL },
	{ 'h', "help", NULL, "this text", NULL, &arg_help },
	{ 'V', "version", NULL, "the version", NULL, &arg_version },
};

static const struct cli_option init_options[] = {
	{ 'n', "name", "NETWORK", "name of the network: a-z, 0-9 and -", &arg_name, NULL },
	{ 'a', "address", "HOST[:PORT]", "where nodes will reach this service (port 8443)",
	  &arg_address, NULL },
	{ '4', "prefix4", "PREFIX", "IPv4 addresses of the overlay (10.77.0.0/16)", &arg_prefix4,
	  NULL },
	{ '6', "prefix6", "PREFIX", "IPv6 addresses of the overlay (a random fd…/64)", &arg_prefix6,
	  NULL },
	{ 'e', "expires", "TIME", "how long the first join link is good: 30m, 24h, 7d, never (24h)",
	  &arg_expires, NULL },
	{ 'r', "reusable", NULL, "the first join link joins any number of machines", NULL,
	  &arg_reusable },
};

static const struct cli_option run_options[] = {
	{ 'L', "listen", "ADDR:PORT", "where to listen (all addresses, the port given to init)",
	  &arg_listen, NULL },
	{ 'u', "user", "NAME", "become this user, and own the state folder as this user", &arg_user,
	  NULL },
};

static const struct cli_option key_options[] = {
	{ 'e', "expires", "TIME", "how long the link is good: 30m, 24h, 7d, never (24h)",
	  &arg_expires, NULL },
	{ 'r', "reusable", NULL, "it joins any number of machines", NULL, &arg_reusable },
	{ 't', "tag", "TAGS", "tags of the machines that join with it: a,b", &arg_tag, NULL },
	{ 0, "relay", NULL, "public nodes that join with it become relays", NULL, &arg_relay },
};

static void print_help(void)
{
	puts("Usage: p2pcontrol init --name NETWORK --address HOST[:PORT] [OPTIONS]\n"
	     "       p2pcontrol run [OPTIONS]\n"
	     "       p2pcontrol key create [OPTIONS]\n"
	     "\n"
	     "The control service of a private network: who is a member, under which name and "
	     "address, and\n"
	     "who can be reached where. Traffic does not pass through it, and goes on while it is "
	     "away.\n"
	     "\n"
	     "First, once:          p2pcontrol init --name home --address control.example.org\n"
	     "Then, as a service:   p2pcontrol run\n"
	     "On each machine:      p2pctl join LINK          (init printed the first LINK)\n"
	     "\n"
	     "Options of init:");
	cli_print_options(stdout, init_options, ARRAY_LEN(init_options));
	puts("\nOptions of run:");
	cli_print_options(stdout, run_options, ARRAY_LEN(run_options));
	puts("\nOptions of key create (also while the service runs; from afar: p2pctl admin key "
	     "create):");
	cli_print_options(stdout, key_options, ARRAY_LEN(key_options));
	puts("\nOptions of all:");
	cli_print_options(stdout, common_options, ARRAY_LEN(common_options));
	puts("\nSIGTERM and SIGINT end it. Exit code 0: done, 1: could not, 2: usage. See "
	     "p2pcontrol(8).");
}

static int usage(const char *what)
{
	fprintf(stderr, "p2pcontrol: %s\nTry: p2pcontrol --help\n", what);
	return EXIT_USAGE;
}

static int failed(const struct error *error)
{
	fprintf(stderr, "p2pcontrol: %s\n", error->message);
	return EXIT_FAILED;
}

/* "90s", "30m", "24h", "7d", "never". 0 or -EINVAL. */
static int parse_life(const char *text, int64_t *ret_s)
{
	static const char units[] = "smhd";
	static const int64_t seconds[] = { 1, 60, 3600, 86400 };
	char *rest;

	if (strcmp(text, "never") == 0) {
		*ret_s = 0;
		return 0;
	}
	errno = 0;
	long value = strtol(text, &rest, 10);
	const char *unit = *rest ? strchr(units, *rest) : NULL;
	if (errno != 0 || rest == text || value < 1 || value > 100000 || !unit || rest[1] != '\0')
		return -EINVAL;
	*ret_s = value * seconds[unit - units];
	return 0;
}

static void print_link(const struct join_link *link)
{
	struct join_link_text text = join_link_text(link);

	printf("%s\n", text.s);
	sodium_memzero(&text, sizeof(text));
}

/* p2pcontrol init */

static void print_next_steps(const struct control_init_options *options,
			     const struct join_link *join)
{
	bool is_default = strcmp(options->state_dir, DEFAULT_STATE_DIR) == 0;

	printf("The network '%s' is ready; everything of it is in %s.\n\n", options->network,
	       options->state_dir);
	printf("1. Start the service here; machines must reach it at %s, TCP port %u:\n\n       "
	       "p2pcontrol run",
	       options->host, options->port);
	if (!is_default)
		printf(" --state-dir %s", options->state_dir);
	printf("\n\n2. Join %s with this link (keep it secret, it is shown only now):\n\n       "
	       "p2pctl join ",
	       options->first_key_reusable ? "machines" : "the first machine");
	print_link(join);
	printf("\n3. Make more links, list and remove machines, with the admin link in "
	       "%s/admin.link:\n\n"
	       "       p2pctl --admin-file %s/admin.link admin key create\n"
	       "\n4. Let a public node of yours (a section [public] in its p2pnode.conf) be the relay:\n\n"
	       "       p2pctl --admin-file %s/admin.link admin relay add NAME\n",
	       options->state_dir, options->state_dir, options->state_dir);
}

static int run_init(void)
{
	char host[JOIN_LINK_MAX_HOST + 1];
	struct join_link join, admin;
	struct error error;
	struct control_init_options options = {
		.state_dir = arg_state_dir,
		.network = arg_name,
		.host = host,
		.prefix4 = arg_prefix4,
		.prefix6 = arg_prefix6,
		.first_key_reusable = arg_reusable,
	};

	if (!arg_name || !arg_address)
		return usage("init needs --name NETWORK and --address HOST[:PORT]");
	if (host_port_parse(arg_address, DEFAULT_PORT, host, &options.port) != 0)
		return usage("--address: must be HOST or HOST:PORT, an IPv6 address in brackets");
	if (parse_life(arg_expires ? arg_expires : DEFAULT_KEY_LIFE, &options.first_key_life_s) !=
	    0)
		return usage("--expires: must be like 30m, 24h, 7d or never");
	if (control_init(&options, &join, &admin, &error) != 0)
		return failed(&error);
	print_next_steps(&options, &join);
	join_link_wipe(&join);
	join_link_wipe(&admin);
	return EXIT_OK;
}

/* p2pcontrol key create */

static int run_key_create(void)
{
	struct control_key_options options = { .is_reusable = arg_reusable, .may_relay = arg_relay, .tags = arg_tag };
	struct join_link link;
	struct error error;

	if (parse_life(arg_expires ? arg_expires : DEFAULT_KEY_LIFE, &options.life_s) != 0)
		return usage("--expires: must be like 30m, 24h, 7d or never");
	if (control_add_key(arg_state_dir, &options, &link, &error) != 0)
		return failed(&error);
	print_link(&link);
	join_link_wipe(&link);
	return EXIT_OK;
}

/* p2pcontrol run */

struct program {
	uv_loop_t loop;
	struct control *control;
	uv_signal_t signals[2];
};

/*
 * One file of the folder, if it is one and has no other name: after the first start the folder is the
 * user's, who must not be able to put another's file into it and have that given, too.
 */
static int give_file_to(int folder, const char *name, const struct passwd *user)
{
	int fd = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat file;
	int r = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &file) != 0)
		r = -errno;
	else if (S_ISREG(file.st_mode) && file.st_nlink == 1 &&
		 fchownat(fd, "", user->pw_uid, user->pw_gid, AT_EMPTY_PATH) != 0)
		r = -errno;
	close(fd);
	return r;
}

/* The folder's files become the user's, but for the admin link. */
static int give_folder_to(const struct passwd *user, struct error *reterr)
{
	DIR *folder = opendir(arg_state_dir);
	int r = folder ? 0 : -errno;

	if (folder && fchown(dirfd(folder), user->pw_uid, user->pw_gid) != 0)
		r = -errno;
	for (struct dirent *entry; r == 0 && (entry = readdir(folder));) {
		if (entry->d_name[0] == '.' || strcmp(entry->d_name, "admin.link") == 0)
			continue;
		r = give_file_to(dirfd(folder), entry->d_name, user);
	}
	if (folder)
		closedir(folder);
	return r == 0 ? 0
		      : error_set(reterr, r, "%s: cannot give it to user %s: %s", arg_state_dir,
				  user->pw_name, strerror(-r));
}

/* Keeps only the right to listen on a low port; that goes too, once we listen. */
static int become_user(struct error *reterr)
{
	const struct passwd *user = getpwnam(arg_user);

	if (!user)
		return error_set(reterr, -ENOENT, "--user: there is no user '%s'", arg_user);
	if (geteuid() == user->pw_uid)
		return 0;
	int r = give_folder_to(user, reterr);
	if (r != 0)
		return r;
	capng_clear(CAPNG_SELECT_BOTH);
	capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_NET_BIND_SERVICE);
	if (capng_change_id((int)user->pw_uid, (int)user->pw_gid,
			    CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING) != 0)
		return error_set(reterr, -EPERM, "--user: cannot become '%s'; only root can",
				 arg_user);
	return 0;
}

/* Root that does not own the folder needs its capabilities to write there. */
static int drop_capabilities(struct error *reterr)
{
	struct stat status;

	if (stat(arg_state_dir, &status) != 0 || status.st_uid != geteuid())
		return 0;
	return service_keep_capabilities(NULL, 0, reterr);
}

static void on_closed(void *owner)
{
	log_info("control", "ended");
}

static void on_signal(uv_signal_t *signal, int number)
{
	struct program *program = signal->data;

	if (!program->control)
		return;
	log_info("control", "signal %d: ending", number);
	service_notify("STOPPING=1");
	control_close(program->control, on_closed, program);
	program->control = NULL;
	for (size_t i = 0; i < ARRAY_LEN(program->signals); i++)
		uv_close((uv_handle_t *)&program->signals[i], NULL);
}

static int start(struct program *program, struct error *reterr)
{
	struct control_options options = { .state_dir = arg_state_dir };
	int r = arg_listen ? endpoint_parse(arg_listen, &options.listen) : 0;

	if (r != 0)
		return error_set(
			reterr, r,
			"--listen: must be ADDRESS:PORT, such as 192.0.2.1:8443 or [::]:8443");
	if (arg_user)
		r = become_user(reterr);
	if (r == 0)
		r = control_new(&program->loop, &options, &program->control, reterr);
	if (r == 0)
		r = drop_capabilities(reterr);
	return r;
}

static int run_run(void)
{
	static const int numbers[] = { SIGTERM, SIGINT };
	struct program program = { .control = NULL };
	struct error error;

	signal(SIGPIPE, SIG_IGN);
	if (uv_loop_init(&program.loop) != 0)
		abort();
	if (start(&program, &error) != 0) {
		if (program.control)
			control_close(program.control, on_closed, &program);
		uv_run(&program.loop, UV_RUN_DEFAULT);
		uv_loop_close(&program.loop);
		return failed(&error);
	}
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
		uv_signal_init(&program.loop, &program.signals[i]);
		program.signals[i].data = &program;
		uv_signal_start(&program.signals[i], on_signal, numbers[i]);
	}
	log_info("control", "serving network=%s port=%u", control_network(program.control),
		 control_port(program.control));
	service_notify("READY=1");
	uv_run(&program.loop, UV_RUN_DEFAULT);
	return uv_loop_close(&program.loop) == 0 ? EXIT_OK : EXIT_FAILED;
}

/* Which command, with which options */

static const struct command {
	const char *words[2];
	const struct cli_option *options;
	size_t n_options;
	int (*run)(void);
} commands[] = {
	{ { "init" }, init_options, ARRAY_LEN(init_options), run_init },
	{ { "run" }, run_options, ARRAY_LEN(run_options), run_run },
	{ { "key", "create" }, key_options, ARRAY_LEN(key_options), run_key_create },
};

static const struct command *find_command(int argc, char *argv[], int *ret_words)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		int n = commands[i].words[1] ? 2 : 1;
		if (argc < n || strcmp(argv[0], commands[i].words[0]) != 0 ||
		    (n == 2 && strcmp(argv[1], commands[i].words[1]) != 0))
			continue;
		*ret_words = n;
		return &commands[i];
	}
	return NULL;
}

static int parse_options(const struct command *command, int argc, char *argv[],
			 struct error *reterr)
{
	const struct cli cli = {
		.options = command ? command->options : NULL,
		.n_options = command ? command->n_options : 0,
		.more = common_options,
		.n_more = ARRAY_LEN(common_options),
	};
	enum log_level level = LOG_LEVEL_INFO;
	int n = 0, r = cli_parse(&cli, argc, argv, &n, reterr);

	if (r == 0 && n > 0 && !command)
		r = error_set(reterr, -EINVAL, "unknown command '%s': init, run or key create",
			      cli_show(argv[0]).s);
	if (r == 0 && n > 0)
		r = error_set(reterr, -EINVAL, "unexpected '%s'", cli_show(argv[0]).s);
	if (r == 0 && arg_log_level && log_level_parse(arg_log_level, &level) != 0)
		r = error_set(reterr, -EINVAL,
			      "--log-level: must be error, warning, info, debug or trace");
	log_set_level(level);
	return r;
}

int main(int argc, char *argv[])
{
	int n_words = 0;
	const struct command *command = find_command(argc - 1, argv + 1, &n_words);
	struct error error;

	if (sodium_init() < 0)
		abort();
	if (parse_options(command, argc - 1 - n_words, argv + 1 + n_words, &error) != 0)
		return usage(error.message);
	if (arg_help) {
		print_help();
		return EXIT_OK;
	}
	if (arg_version) {
		puts("p2pcontrol " P2P_VERSION);
		return EXIT_OK;
	}
	return command ? command->run() : usage("name a command: init, run or key create");
}
