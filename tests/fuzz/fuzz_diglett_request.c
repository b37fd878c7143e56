/* Target: diglett_request_read, diglett_answer_read, token_list_parse. What is read is written as it was, but for the case
 * of letters and a name's last dot. */
#include "relay/diglett/request_wire.h"
#include "relay/diglett/token_list.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_list(const char *text, size_t size)
{
	struct token_list list;
	struct error error;

	if (token_list_parse(text, size, &list, &error) == 0)
		token_list_deinit(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct diglett_request request, request_again;
	static struct diglett_answer answer, answer_again;
	uint8_t bytes[DIGLETT_MAX_REQUEST];

	if (size == 0)
		return 0;
	read_list((const char *)data, size);
	if (diglett_request_read(data, size, &request)) {
		const size_t n = diglett_request_write(&request, bytes);
		assert(diglett_request_read(bytes, n, &request_again));
		assert(memcmp(&request, &request_again, sizeof(request)) == 0);
	}
	if (diglett_answer_read(data, size, &answer)) {
		const size_t n = diglett_answer_write(&answer, bytes);
		assert(diglett_answer_read(bytes, n, &answer_again));
		assert(memcmp(&answer, &answer_again, sizeof(answer)) == 0);
	}
	return 0;
}
