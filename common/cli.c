#include "common/cli.h"

#include "common/suggest.h"
#include "common/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_option *option_at(const struct cli *cli, size_t i)
{
	return i < cli->n_options ? &cli->options[i] : &cli->more[i - cli->n_options];
}

static const struct cli_option *find_name(const struct cli *cli, const char *name, size_t len)
{
	for (size_t i = 0; i < cli->n_options + cli->n_more; i++) {
		const struct cli_option *option = option_at(cli, i);
		if (strlen(option->name) == len && memcmp(option->name, name, len) == 0)
			return option;
	}
	return NULL;
}

static const struct cli_option *find_letter(const struct cli *cli, char letter)
{
	for (size_t i = 0; i < cli->n_options + cli->n_more; i++)
		if (option_at(cli, i)->letter == letter)
			return option_at(cli, i);
	return NULL;
}

struct cli_shown cli_show(const char *argument)
{
	struct cli_shown shown;
	size_t n = 0, size, len = strcspn(argument, "#");
	bool whole = argument[len] == '\0';

	while (n < len) {
		int32_t c = utf8_decode(argument + n, len - n, &size);
		if (n + size > sizeof(shown.s) - 8 || c < 0x20 || c == 0x7f) {
			whole = false;
			break;
		}
		n += size;
	}
	snprintf(shown.s, sizeof(shown.s), "%.*s%s", (int)n, argument, whole ? "" : "…");
	return shown;
}

static int unknown(const struct cli *cli, const char *name, size_t len, struct error *reterr)
{
	struct suggest suggest = suggest_for(name, len);
	char word[32];

	for (size_t i = 0; i < cli->n_options + cli->n_more; i++)
		suggest_offer(&suggest, option_at(cli, i)->name);
	snprintf(word, sizeof(word), "%.*s", (int)len, name);
	if (suggest.near)
		return error_set(reterr, -EINVAL, "unknown option '--%s'; did you mean '--%s'?",
				 cli_show(word).s, suggest.near);
	return error_set(reterr, -EINVAL, "unknown option '--%s'; --help lists them",
			 cli_show(word).s);
}

/* attached: a value in the same argument, or NULL. *ret_extra: 1 when the next one was used. */
static int apply(const struct cli_option *option, const char *attached, const char *next,
		 int *ret_extra, struct error *reterr)
{
	*ret_extra = 0;
	if (!option->value) {
		if (attached)
			return error_set(reterr, -EINVAL, "--%s takes no value", option->name);
		*option->ret_flag = true;
		return 0;
	}
	if (!attached && !next)
		return error_set(reterr, -EINVAL, "--%s needs a value: --%s %s", option->name,
				 option->name, option->value);
	*option->ret_text = attached ? attached : next;
	*ret_extra = attached ? 0 : 1;
	return 0;
}

static int take_option(const struct cli *cli, const char *text, const char *next, int *ret_extra,
		       struct error *reterr)
{
	const struct cli_option *option;

	if (text[1] == '-') {
		const char *name = text + 2, *equals = strchr(name, '=');
		size_t len = equals ? (size_t)(equals - name) : strlen(name);
		option = find_name(cli, name, len);
		if (!option)
			return unknown(cli, name, len, reterr);
		return apply(option, equals ? equals + 1 : NULL, next, ret_extra, reterr);
	}
	option = find_letter(cli, text[1]);
	if (!option && isgraph((unsigned char)text[1]))
		return error_set(reterr, -EINVAL, "unknown option '-%c'; --help lists them",
				 text[1]);
	if (!option)
		return error_set(reterr, -EINVAL, "unknown option; --help lists them");
	return apply(option, text[2] != '\0' ? text + 2 : NULL, next, ret_extra, reterr);
}

int cli_parse(const struct cli *cli, int argc, char *argv[], int *ret_n, struct error *reterr)
{
	bool options_ended = false;
	int n = 0;

	for (int i = 0; i < argc; i++) {
		char *text = argv[i];
		int extra = 0;
		if (!options_ended && strcmp(text, "--") == 0) {
			options_ended = true;
			continue;
		}
		if (options_ended || text[0] != '-' || text[1] == '\0') {
			if (cli->stop_at_argument) {
				*ret_n = i;
				return 0;
			}
			argv[n++] = text;
			continue;
		}
		int r = take_option(cli, text, i + 1 < argc ? argv[i + 1] : NULL, &extra, reterr);
		if (r != 0)
			return r;
		i += extra;
	}
	*ret_n = cli->stop_at_argument ? argc : n;
	return 0;
}

static int left_column(const struct cli_option *option, char *ret, size_t size)
{
	char letter[8] = "    ";

	if (option->letter)
		snprintf(letter, sizeof(letter), "-%c, ", option->letter);
	return snprintf(ret, size, "  %s--%s%s%s", letter, option->name, option->value ? " " : "",
			option->value ? option->value : "");
}

void cli_print_options(FILE *out, const struct cli_option *options, size_t n)
{
	char text[80];
	int widest = 0;

	for (size_t i = 0; i < n; i++) {
		int w = left_column(&options[i], text, sizeof(text));
		widest = w > widest ? w : widest;
	}
	for (size_t i = 0; i < n; i++) {
		left_column(&options[i], text, sizeof(text));
		fprintf(out, "%-*s  %s\n", widest, text, options[i].doc);
	}
}

void cli_wipe(char *argument)
{
	for (volatile char *at = argument; *at != '\0'; at++)
		*at = '*';
}

int cli_number(const char *option, const char *text, long min, long max, long *ret,
	       struct error *reterr)
{
	char *end = NULL;

	errno = 0;
	long value = isdigit((unsigned char)text[0]) ? strtol(text, &end, 10) : 0;
	if (!end || *end != '\0' || errno != 0 || value < min || value > max)
		return error_set(reterr, -EINVAL, "%s: must be a whole number from %ld to %ld",
				 option, min, max);
	*ret = value;
	return 0;
}
