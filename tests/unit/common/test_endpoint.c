/* Endpoints: whom limits per source take for one. */
#include "common/endpoint.h"

#include <assert.h>

static bool is_same(const char *a, const char *b)
{
	struct endpoint left, right;

	assert(endpoint_parse_ip(a, 1, &left) == 0 && endpoint_parse_ip(b, 2, &right) == 0);
	return endpoint_is_same_source(&left, &right) && endpoint_is_same_source(&right, &left);
}

int main(void)
{
	assert(is_same("192.0.2.1", "192.0.2.1"));
	assert(!is_same("192.0.2.1", "192.0.2.2"));
	assert(is_same("2001:db8:0:1::1", "2001:db8:0:1:ffff::2"));
	assert(!is_same("2001:db8:0:1::1", "2001:db8:0:2::1"));
	assert(!is_same("::1", "192.0.2.1")); /* both begin with 64 zero bits */
	return 0;
}
