/*
 * The front door alone, for tests/bench/frontdoor: bench_door PORT HOST TARGET_PORT, all on 127.0.0.1. Ends with its
 * standard input.
 */
#include "relay/frontdoor/front_door.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

static void on_input(uv_poll_t *poll, int status, int events)
{
	if (getchar() == EOF)
		uv_stop(poll->loop);
}

int main(int argc, char **argv)
{
	struct front_door_options options = { .n_listen = 1, .max_visitors_source = 60000 };
	struct door_routes *routes = door_routes_new(1);
	struct door_rule rule;
	struct error error;
	struct front_door *door;
	uv_poll_t input;
	char text[300];

	if (argc != 4 || sodium_init() < 0)
		return 2;
	options.listen[0] = endpoint_from_v4(0x7f000001, (uint16_t)atoi(argv[1]));
	snprintf(text, sizeof(text), "%s 127.0.0.1:%s", argv[2], argv[3]);
	if (door_rule_parse(text, &rule, &error) != 0 || door_routes_add(routes, &rule, &rule.address) != 0 ||
	    front_door_start(uv_default_loop(), &options, routes, &door, &error) != 0) {
		fprintf(stderr, "%s\n", error.message);
		return 1;
	}
	uv_poll_init(uv_default_loop(), &input, 0);
	uv_poll_start(&input, UV_READABLE, on_input);
	uv_run(uv_default_loop(), UV_RUN_DEFAULT);
	uv_poll_stop(&input);
	front_door_stop(door, NULL, NULL);
	uv_close((uv_handle_t *)&input, NULL);
	return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
