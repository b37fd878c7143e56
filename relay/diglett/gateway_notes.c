#include "relay/diglett/gateway_notes.h"

#include "relay/diglett/request_wire.h"

#include <string.h>

bool gateway_notes_next(struct gateway_notes *notes, struct host_name *ret)
{
	while (notes->left > 0) {
		const char *const line = notes->at, *const end = memchr(line, '\n', notes->left);
		const size_t n = end ? (size_t)(end - line) : notes->left, n_taken = end ? n + 1 : n;

		notes->at += n_taken;
		notes->left -= n_taken;
		if (diglett_name_parse(line, n, ret) == 0)
			return true;
	}
	return false;
}

size_t gateway_notes_count(struct gateway_notes notes)
{
	struct host_name name;
	size_t n = 0;

	while (gateway_notes_next(&notes, &name))
		n++;
	return n;
}
