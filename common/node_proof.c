#include "common/node_proof.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <string.h>

#define TAG       "p2pnode-proof-1" /* with its NUL */
#define PLAIN_LEN (sizeof(TAG) + KEY_LEN + PIN_LEN)
#define BOX_LEN   (crypto_box_NONCEBYTES + crypto_box_MACBYTES + PLAIN_LEN)

static_assert(NODE_PROOF_LEN == BOX_LEN / 3 * 4 && BOX_LEN % 3 == 0, "base64 without padding");

void node_challenge_make(struct node_challenge *ret, struct secret_key *ret_secret)
{
	secret_key_generate(ret_secret);
	secret_key_public(ret_secret, &ret->public_key);
	randombytes_buf(ret->random.bytes, sizeof(ret->random.bytes));
}

struct json *node_challenge_to_json(const struct node_challenge *challenge)
{
	struct json *json = json_object();

	json_put_public_key(json, "public_key", &challenge->public_key);
	json_put_public_key(json, "challenge", &challenge->random);
	return json;
}

int node_challenge_from_json(const struct json *json, struct node_challenge *ret,
			     struct error *reterr)
{
	struct node_challenge challenge;
	int r = json_get_public_key(json, "public_key", &challenge.public_key, reterr);

	if (r == 0)
		r = json_get_public_key(json, "challenge", &challenge.random, reterr);
	if (r == 0)
		*ret = challenge;
	return r;
}

static void write_plain(const struct node_challenge *challenge, const struct pin *server,
			uint8_t ret[PLAIN_LEN])
{
	memcpy(ret, TAG, sizeof(TAG));
	memcpy(ret + sizeof(TAG), challenge->random.bytes, KEY_LEN);
	memcpy(ret + sizeof(TAG) + KEY_LEN, server->bytes, PIN_LEN);
}

int node_proof_make(const struct node_challenge *challenge, const struct pin *server,
		    const struct secret_key *node_key, char ret[NODE_PROOF_LEN + 1])
{
	uint8_t plain[PLAIN_LEN], box[BOX_LEN];

	write_plain(challenge, server, plain);
	randombytes_buf(box, crypto_box_NONCEBYTES);
	if (crypto_box_easy(box + crypto_box_NONCEBYTES, plain, sizeof(plain), box,
			    challenge->public_key.bytes, node_key->bytes) != 0)
		return -EINVAL;
	sodium_bin2base64(ret, NODE_PROOF_LEN + 1, box, sizeof(box),
			  sodium_base64_VARIANT_ORIGINAL);
	return 0;
}

bool node_proof_is_right(const struct node_challenge *challenge, const struct secret_key *secret,
			 const struct pin *server, const struct public_key *node_key,
			 const char *proof)
{
	uint8_t box[BOX_LEN], plain[PLAIN_LEN], expected[PLAIN_LEN];
	size_t n = 0;

	if (strlen(proof) != NODE_PROOF_LEN ||
	    sodium_base642bin(box, sizeof(box), proof, NODE_PROOF_LEN, NULL, &n, NULL,
			      sodium_base64_VARIANT_ORIGINAL) != 0 ||
	    n != sizeof(box))
		return false;
	if (crypto_box_open_easy(plain, box + crypto_box_NONCEBYTES,
				 sizeof(box) - crypto_box_NONCEBYTES, box, node_key->bytes,
				 secret->bytes) != 0)
		return false;
	write_plain(challenge, server, expected);
	return sodium_memcmp(plain, expected, sizeof(plain)) == 0;
}
