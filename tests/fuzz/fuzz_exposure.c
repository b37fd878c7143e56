/* Target: exposure_parse: what was read is printed, and the same when that is read again. */
#include "node/exposure.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[2 * EXPOSURE_TEXT], printed[EXPOSURE_TEXT];
	struct exposure exposure, again;
	struct error error;

	if (size >= sizeof(text))
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (exposure_parse(text, &exposure, &error) != 0)
		return 0;
	exposure_print(&exposure, printed);
	if (exposure_parse(printed, &again, &error) != 0 || memcmp(&exposure, &again, sizeof(again)) != 0)
		abort();
	return 0;
}
