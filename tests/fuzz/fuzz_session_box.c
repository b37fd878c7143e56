/*
 * Target: session_box_open, as a stranger and as a peer. The first byte chooses: 0 the rest is a
 * datagram; else the rest is sealed with the peer's key first, so that the plain text is reached.
 */
#include "actors/session_manager/session_box.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct session_box *box, *peer;

static void start(void)
{
	struct secret_key mine = { { 0, 1 } }, theirs = { { 0, 2 } };
	struct public_key public;
	int r;

	assert(sodium_init() >= 0);
	box = session_box_new(&mine);
	peer = session_box_new(&theirs);
	secret_key_public(&theirs, &public);
	r = session_box_set_peer(box, 1, &public);
	assert(r == 0);
	secret_key_public(&mine, &public);
	r = session_box_set_peer(peer, 2, &public);
	assert(r == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct session_message message;
	struct session_opened opened;
	uint8_t datagram[SESSION_MAX_LEN];
	size_t len;

	if (!box)
		start();
	if (size == 0)
		return 0;
	if (data[0] == 0) {
		assert(session_box_open(box, data + 1, size - 1, &opened) !=
		       0); /* no stranger gets in */
		return 0;
	}
	if (session_message_decode(data + 1, size - 1, &message) != 0)
		return 0;
	len = session_box_seal(peer, 2, &message, datagram, sizeof(datagram));
	assert(len > 0);
	assert(session_box_open(box, datagram, len, &opened) == 0 && opened.peer_id == 1);
	assert(session_box_open(box, datagram, len, &opened) == SESSION_E_REPLAYED);
	return 0;
}
