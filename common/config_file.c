/*
 * The parser walks the text line by line with one reader that knows where it is; each line is a
 * comment, a section or an assignment. All knowledge of settings is in the schema.
 */
#include "common/config_file.h"

#include "common/macros.h"
#include "common/suggest.h"
#include "common/utf8.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN    48 /* bytes of the user's text that an error repeats */
#define NO_INDEX SIZE_MAX

/* A piece of the text. */
struct piece {
	const char *at;
	size_t len;
};

struct shown {
	char s[SHOWN + 8];
};

struct parser {
	const struct config_schema *schema;
	struct config_values *values;
	struct error *reterr;
	const char *file;
	uint32_t line;
	const char *section; /* of the schema; NULL before the first */
};

/* text */

static struct piece trim(struct piece p)
{
	while (p.len > 0 && isspace((unsigned char)p.at[0])) {
		p.at++;
		p.len--;
	}
	while (p.len > 0 && isspace((unsigned char)p.at[p.len - 1]))
		p.len--;
	return p;
}

static bool is(struct piece p, const char *text)
{
	return p.len == strlen(text) && memcmp(p.at, text, p.len) == 0;
}

/* For an error: cut short at a whole character. */
static struct shown show(struct piece p)
{
	struct shown shown;
	size_t n = 0, size;

	while (n < p.len) {
		utf8_decode(p.at + n, p.len - n, &size);
		if (n + size > SHOWN)
			break;
		n += size;
	}
	snprintf(shown.s, sizeof(shown.s), "%.*s%s", (int)n, p.at, n < p.len ? "…" : "");
	return shown;
}

static char *piece_copy(struct piece p)
{
	char *copy = strndup(p.at, p.len);

	if (!copy)
		abort();
	return copy;
}

/* errors */

static int fail(struct parser *parser, const char *format, ...) P2P_PRINTF(2, 3);
static int fail(struct parser *parser, const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return error_set(parser->reterr, -EINVAL, "%s:%u: %s", parser->file, parser->line, text);
}

static void append(char *text, size_t cap, const char *format, ...) P2P_PRINTF(3, 4);
static void append(char *text, size_t cap, const char *format, ...)
{
	size_t used = strlen(text);
	va_list args;

	va_start(args, format);
	vsnprintf(text + used, cap - used, format, args);
	va_end(args);
}

static bool starts_section(const struct config_schema *schema, size_t i)
{
	return i == 0 || strcmp(schema->settings[i].section, schema->settings[i - 1].section) != 0;
}

static int unknown_section(struct parser *parser, struct piece name)
{
	const struct config_schema *schema = parser->schema;
	struct suggest suggest = suggest_for(name.at, name.len);
	char known[160] = "";

	for (size_t i = 0; i < schema->n_settings; i++) {
		if (!starts_section(schema, i))
			continue;
		append(known, sizeof(known), "%s[%s]", i == 0 ? "" : ", ",
		       schema->settings[i].section);
		suggest_offer(&suggest, schema->settings[i].section);
	}
	if (suggest.near)
		return fail(parser, "unknown section [%s]; did you mean [%s]?", show(name).s,
			    suggest.near);
	return fail(parser, "unknown section [%s]; the sections are %s", show(name).s, known);
}

static int unknown_key(struct parser *parser, struct piece name)
{
	const struct config_schema *schema = parser->schema;
	struct suggest suggest = suggest_for(name.at, name.len);
	const char *elsewhere = NULL;
	char known[200] = "";

	for (size_t i = 0; i < schema->n_settings; i++) {
		const struct config_setting *setting = &schema->settings[i];
		if (strcmp(setting->section, parser->section) != 0) {
			if (is(name, setting->name))
				elsewhere = setting->section;
			continue;
		}
		append(known, sizeof(known), "%s%s", known[0] ? ", " : "", setting->name);
		suggest_offer(&suggest, setting->name);
	}
	if (elsewhere)
		return fail(parser, "unknown key '%s' in [%s]; it belongs under [%s]", show(name).s,
			    parser->section, elsewhere);
	if (suggest.near)
		return fail(parser, "unknown key '%s' in [%s]; did you mean '%s'?", show(name).s,
			    parser->section, suggest.near);
	return fail(parser, "unknown key '%s' in [%s]; its keys are %s", show(name).s,
		    parser->section, known);
}

/* values */

static int parse_number(const char *text, int64_t *ret)
{
	char *end;

	if (!isdigit((unsigned char)text[text[0] == '-' ? 1 : 0]))
		return -EINVAL;
	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (errno != 0 || *end != '\0')
		return -EINVAL;
	*ret = value;
	return 0;
}

static int parse_bool(const char *text, bool *ret)
{
	static const struct {
		const char *text;
		bool value;
	} words[] = { { "yes", true }, { "true", true },   { "on", true },
		      { "no", false }, { "false", false }, { "off", false } };

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (strcmp(words[i].text, text) == 0) {
			*ret = words[i].value;
			return 0;
		}
	}
	return -EINVAL;
}

static int check_type(struct parser *parser, const struct config_setting *setting,
		      const char *value)
{
	struct piece p = { value, strlen(value) };
	int64_t number;
	bool flag;

	switch (setting->type) {
	case CONFIG_NUMBER:
		if (parse_number(value, &number) == 0 && number >= setting->min &&
		    number <= setting->max)
			return 0;
		return fail(parser, "%s = %s: must be a whole number from %" PRId64 " to %" PRId64,
			    setting->name, show(p).s, setting->min, setting->max);
	case CONFIG_BOOL:
		if (parse_bool(value, &flag) == 0)
			return 0;
		return fail(parser, "%s = %s: must be yes or no", setting->name, show(p).s);
	case CONFIG_TEXT:
		if ((int64_t)p.len >= setting->min && (int64_t)p.len <= setting->max)
			return 0;
		return fail(parser,
			    "%s = %s: must have %" PRId64 " to %" PRId64 " characters, has %zu",
			    setting->name, show(p).s, setting->min, setting->max, p.len);
	}
	abort();
}

static int check_value(struct parser *parser, const struct config_setting *setting,
		       const char *value)
{
	struct error expected = { 0 };
	int r;

	if (value[0] == '\0' && !(setting->type == CONFIG_TEXT && setting->min == 0))
		return fail(parser, "%s has no value; give it one or delete the line",
			    setting->name);
	r = check_type(parser, setting, value);
	if (r == 0 && setting->check && value[0] != '\0' && setting->check(value, &expected) != 0) {
		struct piece p = { value, strlen(value) };
		return fail(parser, "%s = %s: must be %s", setting->name, show(p).s,
			    expected.message);
	}
	return r;
}

static void keep_value(struct config_value *slot, char *value_take, uint32_t line)
{
	slot->items = realloc(slot->items, (slot->n_items + 1) * sizeof(*slot->items));
	slot->lines = realloc(slot->lines, (slot->n_items + 1) * sizeof(*slot->lines));
	if (!slot->items || !slot->lines)
		abort();
	slot->items[slot->n_items] = value_take;
	slot->lines[slot->n_items++] = line;
}

/* lines */

static size_t find_setting(const struct config_schema *schema, const char *section,
			   struct piece name)
{
	for (size_t i = 0; i < schema->n_settings; i++)
		if (strcmp(schema->settings[i].section, section) == 0 &&
		    is(name, schema->settings[i].name))
			return i;
	return NO_INDEX;
}

static int take_section(struct parser *parser, struct piece line)
{
	const struct config_schema *schema = parser->schema;
	const char *found = NULL;

	if (line.at[line.len - 1] != ']')
		return fail(parser, "a section reads '[name]'; found '%s'", show(line).s);
	struct piece name = trim((struct piece){ line.at + 1, line.len - 2 });
	for (size_t i = 0; i < schema->n_settings; i++) {
		if (!is(name, schema->settings[i].section))
			continue;
		found = schema->settings[i].section;
		if (parser->values->has_section[i])
			return fail(parser, "section [%s] stands twice; join the two", found);
		parser->values->has_section[i] = true;
	}
	if (!found)
		return unknown_section(parser, name);
	parser->section = found;
	return 0;
}

static int take_setting(struct parser *parser, struct piece line)
{
	const char *equals = memchr(line.at, '=', line.len);

	if (!equals)
		return fail(parser, "expected 'key = value', found '%s'", show(line).s);
	struct piece name = trim((struct piece){ line.at, (size_t)(equals - line.at) });
	struct piece text =
		trim((struct piece){ equals + 1, (size_t)(line.at + line.len - equals - 1) });
	if (!parser->section)
		return fail(parser,
			    "'%s' stands before any section; put it under one, such as [%s]",
			    show(name).s, parser->schema->settings[0].section);
	size_t i = find_setting(parser->schema, parser->section, name);
	if (i == NO_INDEX)
		return unknown_key(parser, name);

	const struct config_setting *setting = &parser->schema->settings[i];
	struct config_value *slot = &parser->values->values[i];
	if (slot->n_items > 0 && !setting->repeatable)
		return fail(parser, "%s stands twice in [%s] (first in line %u); keep one",
			    setting->name, setting->section, slot->lines[0]);
	if (slot->n_items >= CONFIG_FILE_MAX_ITEMS)
		return fail(parser, "%s stands more than %d times in [%s]", setting->name,
			    CONFIG_FILE_MAX_ITEMS, setting->section);
	if (text.len > CONFIG_FILE_MAX_VALUE)
		return fail(parser, "the value of %s is longer than %d bytes", setting->name,
			    CONFIG_FILE_MAX_VALUE);
	char *value = piece_copy(text);
	int r = check_value(parser, setting, value);
	if (r != 0) {
		free(value);
		return r;
	}
	keep_value(slot, value, parser->line);
	return 0;
}

static int take_line(struct parser *parser, struct piece line)
{
	if (line.len > CONFIG_FILE_MAX_LINE)
		return fail(parser, "line longer than %d bytes", CONFIG_FILE_MAX_LINE);
	line = trim(line);
	if (!utf8_is_valid(line.at, line.len))
		return fail(parser, "not valid UTF-8; save the file as UTF-8");
	for (size_t i = 0; i < line.len; i++)
		if (iscntrl((unsigned char)line.at[i]) && line.at[i] != '\t')
			return fail(parser, "control character (byte 0x%02x); remove it",
				    (unsigned char)line.at[i]);
	if (line.len == 0 || line.at[0] == '#' || line.at[0] == ';')
		return 0;
	return line.at[0] == '[' ? take_section(parser, line) : take_setting(parser, line);
}

static void init_values(struct config_values *values, const struct config_schema *schema,
			const char *file)
{
	*values = (struct config_values){
		.schema = schema,
		.file = file,
		.has_section = calloc(schema->n_settings, sizeof(*values->has_section)),
		.values = calloc(schema->n_settings, sizeof(*values->values)),
	};
	if (!values->has_section || !values->values)
		abort();
}

/* public */

int config_file_parse(const struct config_schema *schema, const char *file, const char *text,
		      size_t len, struct config_values *ret, struct error *reterr)
{
	struct config_values values;
	struct parser parser = {
		.schema = schema, .values = &values, .reterr = reterr, .file = file
	};
	int r = 0;

	if (len > CONFIG_FILE_MAX_LEN)
		return error_set(reterr, -EFBIG, "%s: longer than %d bytes", file,
				 CONFIG_FILE_MAX_LEN);
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
		text += 3;
		len -= 3;
	}
	init_values(&values, schema, file);
	while (len > 0 && r == 0) {
		const char *newline = memchr(text, '\n', len);
		size_t n = newline ? (size_t)(newline - text) : len;
		parser.line++;
		r = take_line(&parser, (struct piece){ text, n });
		n += newline ? 1 : 0;
		text += n;
		len -= n;
	}
	if (r != 0) {
		config_values_deinit(&values);
		return r;
	}
	*ret = values;
	return 0;
}

void config_values_deinit(struct config_values *values)
{
	for (size_t i = 0; values->values && i < values->schema->n_settings; i++) {
		for (uint32_t j = 0; j < values->values[i].n_items; j++)
			free(values->values[i].items[j]);
		free(values->values[i].items);
		free(values->values[i].lines);
	}
	free(values->values);
	free(values->has_section);
	*values = (struct config_values){ 0 };
}

static size_t index_of(const struct config_values *values, const char *section, const char *name)
{
	size_t i = find_setting(values->schema, section, (struct piece){ name, strlen(name) });

	if (i == NO_INDEX)
		abort(); /* our own mistake: the program asks for what its schema does not have */
	return i;
}

bool config_has_section(const struct config_values *values, const char *section)
{
	for (size_t i = 0; i < values->schema->n_settings; i++)
		if (strcmp(values->schema->settings[i].section, section) == 0)
			return values->has_section[i];
	abort();
}

const char *config_text(const struct config_values *values, const char *section, const char *name)
{
	size_t i = index_of(values, section, name);

	if (values->values[i].n_items > 0)
		return values->values[i].items[0];
	return values->schema->settings[i].unset ? values->schema->settings[i].unset : "";
}

int64_t config_number(const struct config_values *values, const char *section, const char *name)
{
	int64_t number;
	int r = parse_number(config_text(values, section, name), &number);

	assert(r == 0);
	return number;
}

bool config_bool(const struct config_values *values, const char *section, const char *name)
{
	bool flag;
	int r = parse_bool(config_text(values, section, name), &flag);

	assert(r == 0);
	return flag;
}

uint32_t config_count(const struct config_values *values, const char *section, const char *name)
{
	return values->values[index_of(values, section, name)].n_items;
}

const char *config_item(const struct config_values *values, const char *section, const char *name,
			uint32_t i)
{
	const struct config_value *slot = &values->values[index_of(values, section, name)];

	assert(i < slot->n_items);
	return slot->items[i];
}

uint32_t config_line(const struct config_values *values, const char *section, const char *name, uint32_t i)
{
	const struct config_value *slot = &values->values[index_of(values, section, name)];

	assert(i < slot->n_items);
	return slot->lines[i];
}

static int error_on_line(const struct config_values *values, uint32_t line, struct error *reterr, const char *format,
			 va_list args) P2P_PRINTF(4, 0);

static int error_on_line(const struct config_values *values, uint32_t line, struct error *reterr, const char *format,
			 va_list args)
{
	char text[400], place[16] = "";

	vsnprintf(text, sizeof(text), format, args);
	if (line > 0)
		snprintf(place, sizeof(place), ":%u", line);
	return error_set(reterr, -EINVAL, "%s%s: %s", values->file, place, text);
}

int config_error(const struct config_values *values, const char *section, const char *name,
		 struct error *reterr, const char *format, ...)
{
	const struct config_value *slot = &values->values[index_of(values, section, name)];
	va_list args;

	va_start(args, format);
	const int r = error_on_line(values, slot->n_items > 0 ? slot->lines[slot->n_items - 1] : 0, reterr, format, args);
	va_end(args);
	return r;
}

int config_error_at(const struct config_values *values, const char *section, const char *name, uint32_t i,
		    struct error *reterr, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	const int r = error_on_line(values, config_line(values, section, name, i), reterr, format, args);
	va_end(args);
	return r;
}

/* A section with a setting that has no default is there only when somebody wants it. */
static bool is_optional(const struct config_schema *schema, const char *section)
{
	for (size_t i = 0; i < schema->n_settings; i++)
		if (strcmp(schema->settings[i].section, section) == 0 && !schema->settings[i].unset)
			return true;
	return false;
}

static void print_setting(FILE *out, const struct config_setting *setting, const char *hash)
{
	fprintf(out, "%s# %s\n", hash, setting->doc);
	if (setting->type == CONFIG_NUMBER)
		fprintf(out, "%s# %" PRId64 " to %" PRId64 "\n", hash, setting->min, setting->max);
	if (setting->repeatable)
		fprintf(out, "%s# may stand several times\n", hash);
	fprintf(out, "%s%s =%s%s\n", hash, setting->name,
		setting->unset && setting->unset[0] ? " " : "",
		setting->unset ? setting->unset : "");
}

char *config_schema_text(const struct config_schema *schema)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		abort();
	for (size_t i = 0; i < schema->n_settings; i++) {
		const struct config_setting *setting = &schema->settings[i];
		const char *hash = is_optional(schema, setting->section) ? "#" : "";
		if (starts_section(schema, i))
			fprintf(out, "%s%s[%s]\n", i == 0 ? "" : "\n", hash, setting->section);
		print_setting(out, setting, hash);
	}
	if (fclose(out) != 0)
		abort();
	return text;
}
