/* Target: node_status_from_json, node_status_to_json: what is read, is written and read the same again. */
#include "node/status.h"
#include "tests/fuzz/status_again.h"

FUZZ_STATUS(node_status)
