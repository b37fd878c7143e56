/*
 * Configuration files: "[section]" and "key = value" lines, read by a table.
 *
 *   # comment (also ';'); only at the start of a line, so that values may contain either
 *   [section]
 *   key = value          white space around both is dropped; a value has no quotes
 *
 * The table (struct config_schema) names every setting: its section, type, bounds, default and
 * meaning. From it come the parser, its errors with file, line and remedy, the text of the defaults,
 * and the manual page is checked against it. A program parses into a candidate, validates it whole,
 * and only then uses it. Pure: the caller reads the file.
 *
 * Total: any text gives a configuration or an error. Bounds: CONFIG_FILE_MAX_LEN bytes, lines of
 * CONFIG_FILE_MAX_LINE bytes; UTF-8 without control characters.
 */
#pragma once

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_FILE_MAX_LEN   (256 * 1024)
#define CONFIG_FILE_MAX_LINE  1024
#define CONFIG_FILE_MAX_VALUE 256
#define CONFIG_FILE_MAX_ITEMS 64 /* of one repeatable setting */

enum config_type {
	CONFIG_TEXT,   /* a string of min … max bytes */
	CONFIG_NUMBER, /* a decimal integer of min … max */
	CONFIG_BOOL,   /* yes, no, true, false, on, off */
};

/* One setting. */
struct config_setting {
	const char *section, *name;
	enum config_type type;
	int64_t min, max;	  /* of the number, or of the length of the text */
	const char *unset;	  /* the default, as it would stand in the file; NULL: none */
	bool repeatable;	  /* may stand several times; has no default */
	/* More about a value than its type says: 0, or -EINVAL with what is expected in reterr ("a numeric
	 * IP address, such as 198.51.100.1"). May be NULL. */
	int (*check)(const char *value, struct error *reterr);
	const char *doc; /* one line for people */
};

struct config_schema {
	const struct config_setting *settings; /* those of one section stand together */
	size_t n_settings;
};

/* What was read. One slot a setting of the schema, in its order. Freed by config_values_deinit(). */
struct config_value {
	uint32_t n_items; /* 0: not in the file */
	char **items;	  /* the texts, owned */
	uint32_t *lines;  /* where each stands */
};

struct config_values {
	const struct config_schema *schema;
	const char *file; /* its name for errors, borrowed */
	bool *has_section; /* one a setting: its section is in the file, though perhaps empty */
	struct config_value *values;
};

/*
 * 0, or -EINVAL, -EFBIG; reterr says "FILE:LINE: what is wrong; how to mend it". *ret is filled only on
 * success. file is borrowed for as long as *ret lives.
 */
P2P_CHECK int config_file_parse(const struct config_schema *schema, const char *file, const char *text,
				size_t len, struct config_values *ret, struct error *reterr);
void config_values_deinit(struct config_values *values); /* accepts all zero */

bool config_has_section(const struct config_values *values, const char *section);
/* Values by name, the default when not in the file. Asking for what is not in the schema aborts. */
const char *config_text(const struct config_values *values, const char *section, const char *name);
int64_t config_number(const struct config_values *values, const char *section, const char *name);
bool config_bool(const struct config_values *values, const char *section, const char *name);
/* Of a repeatable setting (n may be 0). */
uint32_t config_count(const struct config_values *values, const char *section, const char *name);
const char *config_item(const struct config_values *values, const char *section, const char *name, uint32_t i);
/* The line on which it stands, from 1 on. */
uint32_t config_line(const struct config_values *values, const char *section, const char *name, uint32_t i);
/* For an error found when the candidate is validated whole: "FILE:LINE: ", or "FILE: " when it is not there. */
int config_error(const struct config_values *values, const char *section, const char *name,
		 struct error *reterr, const char *format, ...) P2P_PRINTF(5, 6);
/* Of a repeatable setting: the line of this one; config_error() names that of the last. */
int config_error_at(const struct config_values *values, const char *section, const char *name, uint32_t i,
		    struct error *reterr, const char *format, ...) P2P_PRINTF(6, 7);

/*
 * The schema as a commented file with all defaults, which parses to the defaults; the caller frees it.
 * A section with a setting that has no default stands in it as a comment.
 */
char *config_schema_text(const struct config_schema *schema);
