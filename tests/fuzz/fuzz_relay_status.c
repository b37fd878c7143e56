/* Target: relay_status_from_json, relay_status_to_json: what is read, is written and read the same again. */
#include "node/relay_status.h"
#include "tests/fuzz/status_again.h"

FUZZ_STATUS(relay_status)
