/*
 * Target: acme_fsm. Whatever a server answers, an order ends: in time, and nothing is asked that is no URL or without a nonce.
 * The input: for each answer a byte of status, one of headers, two of length, and the body.
 */
#include "node/acme/acme_fsm.h"

#include "common/wire.h"

#include <stdlib.h>
#include <string.h>

#define MAX_BODY 2048

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static void check(const struct acme_fsm *fsm, const struct acme_request *request, uint64_t now_ms)
{
	struct acme_url url;

	if (request->action == ACME_WAIT)
		expect(request->wait_ms > now_ms && request->wait_ms <= fsm->deadline_ms);
	else if (request->action != ACME_END)
		expect(acme_url_parse(request->url, &url) == 0);
	if (request->action == ACME_POST)
		expect(acme_is_base64url(request->nonce, strlen(request->nonce)));
	expect((request->action == ACME_END) == (fsm->step == ACME_DONE || fsm->step == ACME_FAILED));
	expect(!fsm->shows || fsm->authorization.token[0] != '\0');
}

static struct acme_answer read_answer(struct wire_reader *r, char body[MAX_BODY + 1])
{
	static const unsigned statuses[] = { 200, 201, 204, 301, 400, 403, 429, 503 };
	const uint8_t status = wire_u8(r), headers = wire_u8(r);
	const size_t wanted = wire_u16(r), left = wire_left(r), most = left < MAX_BODY ? left : MAX_BODY;
	const size_t len = wanted < most ? wanted : most;

	if (len > 0)
		wire_bytes(r, body, len);
	body[len] = '\0';
	return (struct acme_answer){ .status = statuses[status % 8],
				     .nonce = headers & 1 ? "bm9uY2U" : headers & 2 ? "no nonce" : "",
				     .location = headers & 4 ? "https://ca.example/1" : headers & 8 ? "http://ca.example" : "",
				     .retry_after_s = headers & 16 ? 5 : headers & 32 ? 700000 : 0,
				     .body = body,
				     .len = len };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct wire_reader r = wire_reader(data, size);
	struct acme_fsm fsm;
	char body[MAX_BODY + 1];
	uint64_t now_ms = 1;

	if (size < 1)
		return 0;
	acme_fsm_init(&fsm, "https://ca.example/directory", wire_u8(&r) % 2 ? ACME_HTTP_01 : ACME_TLS_ALPN_01, now_ms);
	while (wire_left(&r) >= 4) {
		struct acme_request request = acme_fsm_next(&fsm, now_ms);
		check(&fsm, &request, now_ms);
		if (request.action == ACME_END)
			break;
		if (request.action == ACME_WAIT) {
			now_ms = request.wait_ms;
			continue;
		}
		const struct acme_answer answer = read_answer(&r, body);
		acme_fsm_answered(&fsm, now_ms, &answer);
	}
	(void)acme_fsm_next(&fsm, fsm.deadline_ms);
	expect(fsm.step == ACME_DONE || fsm.step == ACME_FAILED);
	return 0;
}
