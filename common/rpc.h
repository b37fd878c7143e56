/*
 * JSON-RPC 2.0 messages and the table of calls that await an answer.
 *
 * The same messages travel over the control WebSocket (one text message each) and over the local
 * Unix socket (one line each). No batches; params are an object or absent. Pure: no I/O, no clock.
 */
#pragma once

#include "common/error.h"
#include "common/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The standard's codes, then ours from -32000 down. rpc_code_text() and rpc_code_remedy() know
 * each.
 */
enum rpc_code {
	RPC_PARSE_ERROR = -32700,
	RPC_INVALID_REQUEST = -32600,
	RPC_METHOD_NOT_FOUND = -32601,
	RPC_INVALID_PARAMS = -32602,
	RPC_INTERNAL_ERROR = -32603,

	RPC_NOT_AUTHENTICATED = -32001, /* no certificate, no login on this connection */
	RPC_NOT_PERMITTED = -32002,     /* known, but not allowed this method */
	RPC_JOIN_KEY_UNKNOWN = -32003,
	RPC_JOIN_KEY_EXPIRED = -32004,
	RPC_JOIN_KEY_USED = -32005,
	RPC_JOIN_KEY_REVOKED = -32006,
	RPC_PROOF_WRONG = -32007,  /* possession of the node key was not shown */
	RPC_NOT_A_MEMBER = -32008, /* removed, expired or never joined */
	RPC_NAME_INVALID = -32009,
	RPC_NAME_TAKEN = -32010,
	RPC_ADDRESSES_EXHAUSTED = -32011,
	RPC_NOT_FOUND = -32012, /* the thing named in params does not exist */
	RPC_TOKEN_UNKNOWN = -32013,
	RPC_BUSY = -32014,         /* a limit is reached now; try later */
	RPC_TIMEOUT = -32015,      /* made locally: no answer in time */
	RPC_DISCONNECTED = -32016, /* made locally: the connection ended before the answer */
	RPC_UNAVAILABLE =
		-32017,       /* the node is not in a state to do this (not joined, no session) */
	RPC_ALREADY = -32018, /* already done (already joined, already exists) */
	RPC_REQUEST_BAD = -32019, /* a certificate request that cannot be signed */
};

/* A short sentence for people, and what to do about it ("" when there is nothing to add). */
const char *rpc_code_text(enum rpc_code code);
const char *rpc_code_remedy(enum rpc_code code);

#define RPC_MAX_ID     64
#define RPC_MAX_METHOD 64
#define RPC_MAX_TEXT   400

struct rpc_id {
	enum rpc_id_kind { RPC_ID_NONE, RPC_ID_NUMBER, RPC_ID_TEXT } kind;
	int64_t number;
	char text[RPC_MAX_ID + 1];
};

struct rpc_error {
	int code; /* an enum rpc_code, or a number we do not know */
	char message[RPC_MAX_TEXT + 1];
};

enum rpc_kind { RPC_REQUEST, RPC_NOTIFICATION, RPC_RESULT, RPC_ERROR };

/* A parsed message. params, result and error.data live as long as the message. */
struct rpc_message {
	enum rpc_kind kind;
	struct rpc_id
		id; /* of a request or an answer; kind NONE on an error answer to what had no id */
	char method[RPC_MAX_METHOD + 1];
	const struct json *params; /* an object, or NULL */
	const struct json *result; /* any value; of RPC_RESULT */
	struct rpc_error error;    /* of RPC_ERROR */
	struct json *root;         /* owned */
};

/*
 * 0: *ret is filled, end it with rpc_message_deinit(). Otherwise -EINVAL or -EFBIG, and
 * *reterr_code is what to answer: RPC_PARSE_ERROR or RPC_INVALID_REQUEST (ret->id is set when the
 * id could be read).
 */
P2P_CHECK int rpc_parse(const char *text, size_t len, const struct json_limits *limits,
			struct rpc_message *ret, enum rpc_code *reterr_code, struct error *reterr);
void rpc_message_deinit(struct rpc_message *message);

/* One line of text each, NUL-terminated, freed by the caller. params and result may be NULL. */
char *rpc_print_request(int64_t id, const char *method, struct json *params_take);
char *rpc_print_notification(const char *method, struct json *params_take);
char *rpc_print_result(const struct rpc_id *id, struct json *result_take);
/* Code's own text is used when message is NULL. */
char *rpc_print_error(const struct rpc_id *id, int code, const char *message);

struct rpc_error rpc_error_make(enum rpc_code code, const char *format, ...) P2P_PRINTF(2, 3);

/*
 * Calls that await an answer, at most RPC_MAX_CALLS. The owner sends what rpc_print_request() gives
 * with the id from rpc_calls_add(), feeds answers and time, and is called back exactly once a call.
 * A callback may add calls and may not deinit the table.
 */
#define RPC_MAX_CALLS 64

/* result is NULL when error is set, and the other way round; both are borrowed. */
typedef void (*rpc_answer_cb)(void *owner, const struct json *result,
			      const struct rpc_error *error);

struct rpc_call {
	int64_t id; /* 0: free */
	uint64_t deadline_ms;
	rpc_answer_cb cb;
	void *owner;
};

struct rpc_calls {
	int64_t last_id;
	uint32_t n;
	struct rpc_call calls[RPC_MAX_CALLS];
};

void rpc_calls_init(struct rpc_calls *calls);
/* The id to send, > 0; or -ENOBUFS when too many calls are pending (cb is not called then). */
P2P_CHECK int64_t rpc_calls_add(struct rpc_calls *calls, uint64_t deadline_ms, rpc_answer_cb cb,
				void *owner);
/*
 * An RPC_RESULT or RPC_ERROR message. False when nobody waits for its id: counted by the caller,
 * dropped.
 */
bool rpc_calls_answer(struct rpc_calls *calls, const struct rpc_message *answer);
/* Forgets a call without calling back. */
void rpc_calls_cancel(struct rpc_calls *calls, int64_t id);
/* The earliest deadline, or 0 when nothing is pending. */
uint64_t rpc_calls_deadline_ms(const struct rpc_calls *calls);
/* Answers each call whose deadline has passed with RPC_TIMEOUT. */
void rpc_calls_expire(struct rpc_calls *calls, uint64_t now_ms);
/* Answers every call with this error (RPC_DISCONNECTED as a rule). */
void rpc_calls_fail_all(struct rpc_calls *calls, enum rpc_code code, const char *message);
