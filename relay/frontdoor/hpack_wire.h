/*
 * The first header block of an HTTP/2 connection (HPACK, RFC 7541), field by field.
 *
 *   1 index          a field of a table                      0 0 0 1 index   literal, never to be indexed
 *   0 1 index        literal, and into the dynamic table     0 0 1 size      the table's size, at the start only
 *   0 0 0 0 index    literal, not into the table             index 0: the name is a literal too
 *
 * Literals are plain or in Huffman's code. The dynamic table begins empty and with 4096 bytes, so all that it can
 * hold was in this very block before: it need not keep values, only whose name each entry has. That makes the
 * decoder small enough to live on the stack.
 *
 * Pure. Bounded: a step for each bit of the block.
 */
#pragma once

#include "common/macros.h"
#include "common/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HPACK_MAX_TEXT	 512  /* kept of a string; its length is told all the same */
#define HPACK_TABLE_SIZE 4096 /* of the dynamic table, until the server says otherwise */
#define HPACK_MAX_ENTRIES (HPACK_TABLE_SIZE / 32)

enum hpack_error {
	HPACK_END = 1, /* no field is left */
	HPACK_BAD,     /* this does not decode; nothing behind it does */
};

enum hpack_name {
	HPACK_OTHER, /* a regular field that is none of these */
	HPACK_HOST,
	HPACK_AUTHORITY,
	HPACK_METHOD,
	HPACK_PATH,
	HPACK_SCHEME,
	HPACK_PSEUDO,  /* another name with a colon in front */
	HPACK_NO_NAME, /* with characters that no name has in HTTP/2, upper case among them; or empty */
	HPACK_N_NAMES
};

struct hpack_string {
	uint32_t len; /* of the whole string; text has HPACK_MAX_TEXT of it at most */
	bool is_name; /* of characters that a name may have, with or without a colon in front */
	bool is_value; /* without NUL, CR and LF */
	bool is_path;  /* a slash, and then no blanks, controls, nor anything beyond ASCII */
	char text[HPACK_MAX_TEXT];
};

struct hpack_field {
	enum hpack_name name;
	bool is_again; /* taken whole from the dynamic table: the same field was in the block before; no value here */
	struct hpack_string value;
};

struct hpack {
	struct wire_reader r;
	bool has_begun; /* with fields: no change of the table's size any more */
	uint32_t size, max_size; /* of the dynamic table, as RFC 7541 counts */
	uint32_t n, newest;	 /* entries: a ring */
	struct hpack_entry {
		uint16_t size, name_len;
		enum hpack_name name;
	} entries[HPACK_MAX_ENTRIES];
};

/* block: all of it, in one piece; borrowed. */
void hpack_init(struct hpack *hpack, const uint8_t *block, size_t len);
/* The next field: 0 or an enum hpack_error. */
P2P_CHECK int hpack_next(struct hpack *hpack, struct hpack_field *ret);
