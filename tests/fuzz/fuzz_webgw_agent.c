/* Target: webgw_word_read, webgw_start_read. What is read as a start is written as it was. */
#include "relay/webgw/agent_wire.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct webgw_word word;
	struct webgw_start start, again;
	uint8_t bytes[WEBGW_START_MAX];

	const int r = webgw_word_read((const char *)data, size, &word);
	assert(r <= 0 && word.n <= WEBGW_PREPARE_MAX && word.text[RPC_MAX_TEXT] == '\0');
	assert(r < 0 || (word.visitor.from.port == 0) == (word.visitor.to.port == 0));
	const int len = webgw_start_read(data, size, &start);
	if (len <= 0)
		return 0;
	assert((size_t)len <= size && (size_t)len <= sizeof(bytes));
	const size_t n = webgw_start_write(&start, bytes);
	assert(n <= (size_t)len); /* a dot at the end of the host is not kept */
	assert(webgw_start_read(bytes, n, &again) == (int)n && host_name_equal(&start.host, &again.host));
	assert(memcmp(start.secret, again.secret, sizeof(start.secret)) == 0 && start.port == again.port);
	assert(start.is_raw == again.is_raw && start.n_first == again.n_first && start.n_first <= WEBGW_FIRST_MAX);
	assert(endpoint_equal(&start.visitor.from, &again.visitor.from) && endpoint_equal(&start.visitor.to, &again.visitor.to));
	return 0;
}
