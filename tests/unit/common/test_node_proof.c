/* A proof of a node key is good for its challenge, its server and its key only. */
#include "common/node_proof.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

struct world {
	struct node_challenge challenge;
	struct secret_key challenge_secret, node_secret;
	struct public_key node_key;
	struct pin pin;
	char proof[NODE_PROOF_LEN + 1];
};

static void begin(struct world *w)
{
	node_challenge_make(&w->challenge, &w->challenge_secret);
	secret_key_generate(&w->node_secret);
	secret_key_public(&w->node_secret, &w->node_key);
	w->pin = (struct pin){ { 1, 2, 3 } };
	assert(node_proof_make(&w->challenge, &w->pin, &w->node_secret, w->proof) == 0);
	assert(strlen(w->proof) == NODE_PROOF_LEN);
}

static bool is_right(const struct world *w)
{
	return node_proof_is_right(&w->challenge, &w->challenge_secret, &w->pin, &w->node_key,
				   w->proof);
}

static void test_the_right_proof_is_right(void)
{
	struct world w;

	begin(&w);
	assert(is_right(&w));
}

static void test_for_another_server_it_is_wrong(void)
{
	struct world w;

	begin(&w);
	w.pin.bytes[31] ^= 1;
	assert(!is_right(&w));
}

static void test_for_another_challenge_it_is_wrong(void)
{
	struct world w;

	begin(&w);
	w.challenge.random.bytes[0] ^= 1;
	assert(!is_right(&w));
}

static void test_for_another_node_key_it_is_wrong(void)
{
	struct world w;
	struct secret_key other;

	begin(&w);
	secret_key_generate(&other);
	secret_key_public(&other, &w.node_key);
	assert(!is_right(&w));
}

static void test_garbage_is_wrong(void)
{
	struct world w;

	begin(&w);
	w.proof[80] = w.proof[80] == 'A' ? 'B' : 'A';
	assert(!is_right(&w));
	w.proof[80] = '!';
	assert(!is_right(&w));
	w.proof[0] = '\0';
	assert(!is_right(&w));
}

static void test_a_challenge_that_fixes_the_secret_is_refused(void)
{
	struct world w;

	begin(&w);
	memset(&w.challenge.public_key, 0, sizeof(w.challenge.public_key)); /* of low order */
	assert(node_proof_make(&w.challenge, &w.pin, &w.node_secret, w.proof) == -EINVAL);
}

static void test_a_challenge_travels_as_json(void)
{
	struct world w;
	struct node_challenge again;

	begin(&w);
	struct json *json = node_challenge_to_json(&w.challenge);
	assert(node_challenge_from_json(json, &again, NULL) == 0);
	assert(memcmp(&again, &w.challenge, sizeof(again)) == 0);
	json_free(json);
}

int main(void)
{
	assert(sodium_init() >= 0);
	test_the_right_proof_is_right();
	test_for_another_server_it_is_wrong();
	test_for_another_challenge_it_is_wrong();
	test_for_another_node_key_it_is_wrong();
	test_garbage_is_wrong();
	test_a_challenge_that_fixes_the_secret_is_refused();
	test_a_challenge_travels_as_json();
	puts("ok");
}
