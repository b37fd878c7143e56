#include "common/error.h"

#include <stdio.h>
#include <string.h>

int error_set(struct error *err, int code, const char *format, ...)
{
	va_list args;

	if (!err)
		return code;
	err->code = code;
	va_start(args, format);
	vsnprintf(err->message, sizeof(err->message), format, args);
	va_end(args);
	return code;
}

void error_prefix(struct error *err, const char *format, ...)
{
	char context[256], rest[sizeof(err->message)];
	va_list args;

	if (!err)
		return;
	va_start(args, format);
	vsnprintf(context, sizeof(context), format, args);
	va_end(args);
	memcpy(rest, err->message, sizeof(rest));
	int n = snprintf(err->message, sizeof(err->message), "%s: ", context);
	size_t used = n > 0 ? (size_t)n : 0;
	snprintf(err->message + used, sizeof(err->message) - used, "%.*s",
		 (int)(sizeof(err->message) - used - 1), rest);
}
