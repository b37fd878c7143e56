/* What the sniffer says of a visitor's bytes, in however many pieces they come. */
#pragma once

#include "relay/frontdoor/sniffer.h"

#include <stddef.h>

#define SNIFFED_MAX_TEXT 400

/*
 * "to `app.example.org`", with what else was found out; or "`no-host`, 400"; or "more". The same is found when the
 * bytes come at once, one at a time, and in two reads cut at every byte: asserted. (Of more than 4 KiB, at some.)
 */
void sniffed_text(const void *bytes, size_t n, char ret[SNIFFED_MAX_TEXT]);

/* The same of a QUIC client's datagrams, each after its length in two bytes. "version negotiation" is an outcome, too. */
void sniffed_quic_text(const uint8_t *datagrams, size_t n, char ret[SNIFFED_MAX_TEXT]);
