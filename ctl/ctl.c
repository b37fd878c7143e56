#include "ctl/ctl.h"

#include "common/macros.h"
#include "common/suggest.h"
#include "node/local_api.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_ADMIN_FILE "/etc/p2pnode/admin"
#define MAX_WORDS          3

/* In the order of the help. */
static const struct ctl_command *const commands[] = {
	&ctl_join,
	&ctl_leave,
	&ctl_status,
	&ctl_ping,
	&ctl_netcheck,
	&ctl_relay_status,
	&ctl_relay_drain,
	&ctl_relay_undrain,
	&ctl_expose,
	&ctl_unexpose,
	&ctl_exposures,
	&ctl_diglett,
	&ctl_diglett_end,
	&ctl_diglett_token_create,
	&ctl_diglett_token_list,
	&ctl_diglett_token_revoke,
	&ctl_log_level,
	&ctl_version,
	&ctl_admin_status,
	&ctl_admin_key_create,
	&ctl_admin_key_list,
	&ctl_admin_key_revoke,
	&ctl_admin_node_list,
	&ctl_admin_node_remove,
	&ctl_admin_node_rename,
	&ctl_admin_relay_add,
	&ctl_admin_relay_list,
	&ctl_admin_relay_remove,
	&ctl_admin_host_add,
	&ctl_admin_host_list,
	&ctl_admin_host_remove,
	&ctl_admin_port_add,
	&ctl_admin_port_list,
	&ctl_admin_port_remove,
};

enum { GLOBAL_SOCKET, GLOBAL_ADMIN_FILE, GLOBAL_JSON, GLOBAL_HELP, GLOBAL_VERSION };

static const struct cli_option global_options[] = {
	[GLOBAL_SOCKET] = { 's', "socket", "PATH", "The node's socket (" LOCAL_API_DEFAULT_PATH ")",
			    NULL, NULL },
	[GLOBAL_ADMIN_FILE] = { 0, "admin-file", "PATH",
				"File with the admin link (" DEFAULT_ADMIN_FILE ")", NULL, NULL },
	[GLOBAL_JSON] = { 'j', "json", NULL, "Answer in JSON, for programs", NULL, NULL },
	[GLOBAL_HELP] = { 'h', "help", NULL, "This text", NULL, NULL },
	[GLOBAL_VERSION] = { 'V', "version", NULL, "The version", NULL, NULL },
};

/* What the command line said to a table of options. */
struct bound {
	struct cli_option options[CTL_MAX_OPTIONS];
	const char *values[CTL_MAX_OPTIONS];
	bool flags[CTL_MAX_OPTIONS];
	size_t n;
};

static void bind_options(struct bound *bound, const struct cli_option *options, size_t n)
{
	if (n > CTL_MAX_OPTIONS)
		abort();
	*bound = (struct bound){ .n = n };
	for (size_t i = 0; i < n; i++) {
		bound->options[i] = options[i];
		bound->options[i].ret_text = &bound->values[i];
		bound->options[i].ret_flag = &bound->flags[i];
	}
}

/* saying */

enum ctl_exit ctl_fail(struct ctl *ctl, enum ctl_exit code, const char *format, ...)
{
	va_list args;

	fputs("p2pctl: ", ctl->err);
	va_start(args, format);
	vfprintf(ctl->err, format, args);
	va_end(args);
	fputc('\n', ctl->err);
	return code;
}

enum ctl_exit ctl_fail_rpc(struct ctl *ctl, enum ctl_exit code, const struct rpc_error *error)
{
	const char *remedy = rpc_code_remedy((enum rpc_code)error->code);
	/* An internal error that came with a reason of its own needs no look at a log. */
	bool told = remedy[0] == '\0' || strstr(error->message, remedy) ||
		    error->code == RPC_INTERNAL_ERROR;

	return ctl_fail(ctl, code, "%s%s%s", error->message, told ? "" : "; ", told ? "" : remedy);
}

void ctl_print_json_borrowed(struct ctl *ctl, const struct json *json)
{
	char *text = json_print(json);

	fprintf(ctl->out, "%s\n", text);
	fflush(ctl->out);
	free(text);
}

void ctl_print_json(struct ctl *ctl, struct json *json_take)
{
	ctl_print_json_borrowed(ctl, json_take);
	json_free(json_take);
}

/* help */

static void print_help(FILE *out)
{
	fputs("Usage: p2pctl COMMAND [OPTIONS]\n"
	      "\n"
	      "Speaks to the node of this machine, and to the network's control with an admin link.\n"
	      "\n"
	      "Commands:\n",
	      out);
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		char left[64];
		snprintf(left, sizeof(left), "%s %s", commands[i]->name, commands[i]->arguments);
		fprintf(out, "  %-38s %s\n", left, commands[i]->summary);
	}
	fputs("\nOptions of every command:\n", out);
	cli_print_options(out, global_options, ARRAY_LEN(global_options));
	fputs("\n"
	      "First steps:\n"
	      "    p2pctl join LINK         with a link from whoever runs the network\n"
	      "    p2pctl status            who is there, and by which path\n"
	      "    p2pctl ping NAME         does it answer, and by which path\n"
	      "    p2pctl netcheck          what is wrong, and what to do\n"
	      "\n"
	      "Exit codes: 0 done, 1 failed, 2 usage, 3 node not running, 4 not joined,\n"
	      "5 control not reachable, 6 permission denied. 'p2pctl COMMAND --help' says more.\n",
	      out);
}

static void print_usage(FILE *out, const struct ctl_command *command)
{
	fprintf(out, "p2pctl %s%s%s%s", command->name, command->arguments[0] ? " " : "",
		command->arguments, command->n_options ? " [OPTIONS]" : "");
}

static void print_command_help(FILE *out, const struct ctl_command *command)
{
	fputs("Usage: ", out);
	print_usage(out, command);
	fprintf(out, "\n\n%s", command->text);
	if (command->n_options) {
		fputs("\nOptions:\n", out);
		cli_print_options(out, command->options, command->n_options);
	}
	fputs("\nOptions of every command:\n", out);
	cli_print_options(out, global_options, ARRAY_LEN(global_options));
}

/* finding the command */

/* How many of the words are the command's name; 0: another command. */
static int words_matched(const struct ctl_command *command, int argc, char *const argv[])
{
	const char *name = command->name;

	for (int i = 0; i < argc; i++) {
		size_t len = strlen(argv[i]);
		if (strncmp(name, argv[i], len) != 0 || (name[len] != ' ' && name[len] != '\0'))
			return 0;
		if (name[len] == '\0')
			return i + 1;
		name += len + 1;
	}
	return 0;
}

/* The one with most words: "diglett" is one, and so is "diglett end". */
static const struct ctl_command *find_command(int argc, char *const argv[], int *ret_words)
{
	const struct ctl_command *found = NULL;

	*ret_words = 0;
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		const int words = words_matched(commands[i], argc, argv);
		if (words > *ret_words) {
			*ret_words = words;
			found = commands[i];
		}
	}
	return found;
}

/* The words up to the first option, as far as a name may have them. */
static void join_words(int argc, char *const argv[], char *ret, size_t size)
{
	ret[0] = '\0';
	for (int i = 0; i < argc && i < MAX_WORDS && argv[i][0] != '-'; i++)
		snprintf(ret + strlen(ret), size - strlen(ret), "%s%s", i == 0 ? "" : " ",
			 cli_show(argv[i]).s);
}

/* "admin", "admin key": the beginning of several names. */
static int say_group(struct ctl *ctl, const char *group)
{
	size_t len = strlen(group);
	int n = 0;

	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		if (strncmp(commands[i]->name, group, len) != 0 || commands[i]->name[len] != ' ')
			continue;
		if (n++ == 0)
			ctl_fail(ctl, CTL_USAGE, "%s: one of its commands is needed:", group);
		fprintf(ctl->err, "  p2pctl %-26s%s\n", commands[i]->name, commands[i]->summary);
	}
	return n;
}

static enum ctl_exit unknown_command(struct ctl *ctl, int argc, char *const argv[])
{
	char words[200];

	join_words(argc, argv, words, sizeof(words));
	if (say_group(ctl, words) > 0)
		return CTL_USAGE;

	struct suggest suggest = suggest_for(words, strlen(words));
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		suggest_offer(&suggest, commands[i]->name);
	if (!suggest.near) { /* perhaps only the first word is the command's */
		suggest = suggest_for(words, strcspn(words, " "));
		for (size_t i = 0; i < ARRAY_LEN(commands); i++)
			suggest_offer(&suggest, commands[i]->name);
	}
	if (suggest.near)
		return ctl_fail(ctl, CTL_USAGE, "no command '%s'; did you mean '%s'?", words,
				suggest.near);
	return ctl_fail(ctl, CTL_USAGE, "no command '%s'; 'p2pctl --help' lists them", words);
}

/* running it */

static void apply_globals(struct ctl *ctl, const struct bound *global)
{
	if (global->values[GLOBAL_SOCKET])
		ctl->socket = global->values[GLOBAL_SOCKET];
	if (global->values[GLOBAL_ADMIN_FILE])
		ctl->admin_file = global->values[GLOBAL_ADMIN_FILE];
	ctl->json = global->flags[GLOBAL_JSON];
}

static enum ctl_exit usage(struct ctl *ctl, const struct ctl_command *command, const char *what)
{
	fprintf(ctl->err, "p2pctl: %s: %s\nUsage: ", command->name, what);
	print_usage(ctl->err, command);
	fprintf(ctl->err, "   (p2pctl %s --help says more)\n", command->name);
	return CTL_USAGE;
}

static enum ctl_exit run_command(struct ctl *ctl, const struct ctl_command *command,
				 struct bound *global, int argc, char *argv[])
{
	struct bound own;
	struct error error;
	int n;

	bind_options(&own, command->options, command->n_options);
	const struct cli cli = { own.options, global->options, own.n, global->n, false };
	if (cli_parse(&cli, argc, argv, &n, &error) != 0)
		return usage(ctl, command, error.message);
	if (global->flags[GLOBAL_HELP]) {
		print_command_help(ctl->out, command);
		return CTL_OK;
	}
	char text[128];
	if (n < command->min_arguments) {
		snprintf(text, sizeof(text), "%s is missing", command->arguments);
		return usage(ctl, command, text);
	}
	if (n > command->max_arguments) {
		snprintf(text, sizeof(text), "too many arguments, from '%s' on",
			 cli_show(argv[command->max_arguments]).s);
		return usage(ctl, command, text);
	}
	apply_globals(ctl, global);

	struct ctl_args args = { .n = n, .argv = argv };
	memcpy(args.values, own.values, sizeof(args.values));
	memcpy(args.flags, own.flags, sizeof(args.flags));
	return command->run(ctl, &args);
}

static const char *from_environment(const char *name, const char *fallback)
{
	const char *value = getenv(name);

	return value && value[0] != '\0' ? value : fallback;
}

int ctl_main(int argc, char *argv[], FILE *in, FILE *out, FILE *err)
{
	struct ctl ctl = { .socket = from_environment("P2PNODE_SOCKET", LOCAL_API_DEFAULT_PATH),
			   .admin_file = from_environment("P2P_ADMIN_FILE", DEFAULT_ADMIN_FILE),
			   .in = in,
			   .out = out,
			   .err = err };
	struct bound global;
	struct error error;
	int n, words;

	bind_options(&global, global_options, ARRAY_LEN(global_options));
	const struct cli cli = { global.options, NULL, global.n, 0, true };
	if (cli_parse(&cli, argc - 1, argv + 1, &n, &error) != 0)
		return (int)ctl_fail(&ctl, CTL_USAGE, "%s", error.message);
	argc -= n + 1;
	argv += n + 1;
	if (global.flags[GLOBAL_VERSION])
		return (int)ctl_version.run(&ctl, &(struct ctl_args){ 0 });
	if (argc > 0 && strcmp(argv[0], "help") == 0) {
		global.flags[GLOBAL_HELP] = true;
		argc--;
		argv++;
	}
	if (argc == 0) {
		bool asked = global.flags[GLOBAL_HELP];
		print_help(asked ? out : err);
		return asked ? CTL_OK : CTL_USAGE;
	}
	const struct ctl_command *command = find_command(argc, argv, &words);
	if (!command)
		return (int)unknown_command(&ctl, argc, argv);
	return (int)run_command(&ctl, command, &global, argc - words, argv + words);
}
