/*
 * WireGuard's four messages. All numbers are little-endian; the type is one byte and three zeroes.
 *
 * initiation (148)                              response (92)
 * +--------+--------+---------------------+     +--------+--------+----------+-------------+
 * | type 1 | sender | noise (108)         |     | type 2 | sender | receiver | noise (48)  |
 * +--------+--------+--+---------+--------+     +--------+---+----+----------+---+---------+
 * |     mac1 (16)      |    mac2 (16)     |     |     mac1 (16)     |    mac2 (16)          |
 * +--------------------+------------------+     +-------------------+-----------------------+
 *
 * cookie reply (64)                             data (32 + n)
 * +--------+----------+------------+------+     +--------+----------+-------------+---------+
 * | type 3 | receiver | nonce (24) |cookie|     | type 4 | receiver | counter (8) | sealed… |
 * +--------+----------+------------+-(32)-+     +--------+----------+-------------+---------+
 *
 * The noise parts are exactly the two messages of Noise IKpsk2: e, s and time stamp; e and nothing.
 */
#pragma once

#include "common/macros.h"

#include <stddef.h>
#include <stdint.h>

#define WG_INITIATION_LEN	148
#define WG_RESPONSE_LEN		92
#define WG_COOKIE_REPLY_LEN	64
#define WG_DATA_HEADER_LEN	16
#define WG_DATA_MIN_LEN		32
#define WG_NOISE_INITIATION_LEN 108
#define WG_NOISE_RESPONSE_LEN	48

enum wg_message_type {
	WG_MESSAGE_INITIATION = 1,
	WG_MESSAGE_RESPONSE = 2,
	WG_MESSAGE_COOKIE_REPLY = 3,
	WG_MESSAGE_DATA = 4,
};

enum wg_message_error {
	WG_MESSAGE_E_MALFORMED = 1, /* wrong length or type */
};

struct wg_initiation {
	uint32_t sender;
	uint8_t noise[WG_NOISE_INITIATION_LEN];
	uint8_t mac1[16], mac2[16];
};

struct wg_response {
	uint32_t sender, receiver;
	uint8_t noise[WG_NOISE_RESPONSE_LEN];
	uint8_t mac1[16], mac2[16];
};

struct wg_cookie_reply {
	uint32_t receiver;
	uint8_t nonce[24];
	uint8_t sealed[32];
};

struct wg_data_header {
	uint32_t receiver;
	uint64_t counter;
};

/* The type if the length fits it (and 1..4), else 0. */
enum wg_message_type wg_message_type(const void *buf, size_t len);

/* 0, or an enum wg_message_error; write *ret only on success. */
P2P_CHECK int wg_initiation_decode(const void *buf, size_t len, struct wg_initiation *ret);
P2P_CHECK int wg_response_decode(const void *buf, size_t len, struct wg_response *ret);
P2P_CHECK int wg_cookie_reply_decode(const void *buf, size_t len, struct wg_cookie_reply *ret);
/* Of a whole data message: len counts the sealed part, which is not looked at. */
P2P_CHECK int wg_data_header_decode(const void *buf, size_t len, struct wg_data_header *ret);

/* Into exactly the message's length. */
void wg_initiation_encode(uint8_t buf[WG_INITIATION_LEN], const struct wg_initiation *message);
void wg_response_encode(uint8_t buf[WG_RESPONSE_LEN], const struct wg_response *message);
void wg_cookie_reply_encode(uint8_t buf[WG_COOKIE_REPLY_LEN], const struct wg_cookie_reply *message);
void wg_data_header_encode(uint8_t buf[WG_DATA_HEADER_LEN], const struct wg_data_header *header);
