/* ClientHellos to test with, built from the layout in RFC 8446, and any hello split over records. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HELLO_MAX_NAMES 3

struct hello_options {
	const char *names[HELLO_MAX_NAMES]; /* of hosts; none: no extension */
	size_t name_len;		    /* of each; 0: as long as the string */
	bool repeats_extension;		    /* server_name a second time */
	const char *alpn[4];
	int ech;	     /* 0: none; 1: outer, 2: inner */
	size_t padding;	     /* bytes of an extension with nothing but zeroes */
	size_t key_share;    /* bytes of a key share that comes before server_name: post-quantum ones have 1,216 and more */
	bool is_old;	     /* TLS 1.2 without any extension */
	size_t trailing;     /* bytes behind the extensions, inside the message */
	bool is_other;	     /* a ServerHello instead */
};

/* The handshake message, without a record. Bytes written; it must fit. */
size_t hello_build(const struct hello_options *options, uint8_t *ret, size_t cap);
/* message in records of at most record_len bytes each. Bytes written. */
size_t hello_in_records(const uint8_t *message, size_t len, size_t record_len, uint8_t *ret, size_t cap);
/* What is in the records, put together again. Bytes written. */
size_t hello_of_records(const uint8_t *records, size_t len, uint8_t *ret, size_t cap);
