#include "actors/relay_manager/peer_silence.h"

#define MS	     UINT64_C(1000000)
#define PATIENCE_NS  (400 * MS)
#define MORE_NS	     (150 * MS) /* a single packet without an answer says nothing */
#define SEEK_NS	     (2400 * MS) /* so long after the first one it is sought all the time, then whenever it is woken */
#define WAKE_NS	     (1000 * MS) /* between two wakes; doubled each time, up to … */
#define WAKE_MAX_NS  (64000 * MS)
#define TURN_NS	     (600 * MS) /* the same for turns */
#define TURN_MAX_NS  (60000 * MS)
#define HANDSHAKE_NS (4000 * MS) /* WireGuard begins another after 5 s, a little less at times … */
#define N_AGAIN	     5		 /* … and is made to begin so many more */

static uint64_t doubled(uint64_t ns, uint32_t times, uint64_t most)
{
	for (uint32_t i = 0; i < times && ns < most; i++)
		ns *= 2;
	return ns < most ? ns : most;
}

void peer_silence_sent(struct peer_silence *silence, uint64_t at_ns, bool is_handshake)
{
	/* One that was asked for by us is part of the last. */
	if (is_handshake && (silence->handshake_ns == 0 || at_ns >= silence->handshake_ns + HANDSHAKE_NS)) {
		silence->handshake_ns = at_ns;
		silence->again_ns = at_ns + PATIENCE_NS;
		silence->n_again = 0;
	}
	if (at_ns <= silence->heard_ns || at_ns <= silence->sent_ns)
		return;
	silence->sent_ns = at_ns;
	if (silence->unanswered_ns == 0)
		silence->unanswered_ns = at_ns;
}

void peer_silence_heard(struct peer_silence *silence, uint64_t at_ns)
{
	if (at_ns <= silence->heard_ns)
		return;
	silence->heard_ns = at_ns;
	if (silence->unanswered_ns == 0 || silence->unanswered_ns > at_ns)
		return;
	*silence = (struct peer_silence){
		.heard_ns = at_ns,
		.sent_ns = silence->sent_ns,
		/* What was sent last is as fresh as this. */
		.unanswered_ns = silence->sent_ns > at_ns ? silence->sent_ns : 0,
	};
}

bool peer_silence_is_doubted(const struct peer_silence *silence, uint64_t now_ns)
{
	if (silence->unanswered_ns == 0 || now_ns < silence->unanswered_ns + PATIENCE_NS)
		return false;
	return silence->handshake_ns != 0 || silence->sent_ns >= silence->unanswered_ns + MORE_NS;
}

static bool is_due_again(struct peer_silence *silence, uint64_t now_ns)
{
	if (silence->handshake_ns == 0 || silence->n_again == N_AGAIN || now_ns < silence->again_ns)
		return false;
	silence->n_again++;
	silence->again_ns = now_ns + PATIENCE_NS / 2 + silence->n_again * (PATIENCE_NS / 4);
	return true;
}

uint32_t peer_silence_due(struct peer_silence *silence, uint64_t now_ns)
{
	uint32_t due = 0;

	if (!peer_silence_is_doubted(silence, now_ns))
		return 0;
	if (now_ns >= silence->wake_ns) {
		silence->wake_ns = now_ns + doubled(WAKE_NS, silence->n_wakes++, WAKE_MAX_NS);
		due |= PEER_SILENCE_WAKE | PEER_SILENCE_SEEK;
	}
	if (now_ns < silence->unanswered_ns + SEEK_NS)
		due |= PEER_SILENCE_SEEK;
	if (now_ns >= silence->turn_ns)
		due |= PEER_SILENCE_TURN;
	if (is_due_again(silence, now_ns))
		due |= PEER_SILENCE_AGAIN;
	return due;
}

void peer_silence_turned(struct peer_silence *silence, uint64_t now_ns)
{
	silence->turn_ns = now_ns + doubled(TURN_NS, silence->n_turns++, TURN_MAX_NS);
}
