/*
 * Target: all that is read of an ACME server. The first byte says as what the rest is read; what was taken of it is in its bounds, and
 * URLs that were taken are URLs.
 */
#include "node/acme/acme_wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool holds)
{
	if (!holds)
		abort();
}

static bool is_url(const char *text)
{
	struct acme_url url;

	return acme_url_parse(text, &url) == 0 && url.port != 0 && url.host[0] != '\0' && url.path[0] == '/';
}

static void read_directory(const char *text, size_t len)
{
	struct acme_directory directory;

	if (acme_directory_parse(text, len, &directory, NULL) == 0)
		expect(is_url(directory.new_nonce) && is_url(directory.new_account) && is_url(directory.new_order));
}

static void read_order(const char *text, size_t len)
{
	struct acme_order order;

	if (acme_order_parse(text, len, &order, NULL) == 0)
		expect(is_url(order.authorization) && is_url(order.finalize) &&
		       (order.status == ACME_VALID) == is_url(order.certificate));
}

static void read_authorization(const char *text, size_t len)
{
	struct acme_authorization authorization;
	char answer[ACME_ANSWER_LEN + 1];

	for (int i = 0; i < ACME_N_CHALLENGES; i++) {
		if (acme_authorization_parse(text, len, (enum acme_challenge)i, &authorization, NULL) != 0 ||
		    authorization.token[0] == '\0')
			continue;
		expect(acme_is_base64url(authorization.token, strlen(authorization.token)) && is_url(authorization.challenge));
		acme_key_authorization(authorization.token, "0123456789012345678901234567890123456789012", answer);
		expect(strlen(answer) == strlen(authorization.token) + 1 + ACME_THUMBPRINT);
	}
}

static void read_others(const char *text, size_t len)
{
	struct acme_url url;
	const struct acme_problem problem = acme_problem_parse(text, len);

	for (const char *i = problem.detail; *i; i++)
		expect(*i >= ' ' && *i <= '~');
	expect(acme_retry_after(text, len, 1790000000) <= 7 * 24 * 3600);
	if (acme_url_parse(text, &url) == 0)
		expect(strlen(url.authority) < sizeof(url.authority) && !strpbrk(url.path, " \r\n") && !strpbrk(url.authority, " \r\n/"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	char *text = malloc(size);
	if (!text)
		abort();
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0] % 4) {
	case 0:
		read_directory(text, size - 1);
		break;
	case 1:
		read_order(text, size - 1);
		break;
	case 2:
		read_authorization(text, size - 1);
		break;
	default:
		read_others(text, size - 1);
	}
	free(text);
	return 0;
}
