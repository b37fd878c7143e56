#include "actors/relay_manager/peer_silence.h"

#define MS	     UINT64_C(1000000)
#define PATIENCE_NS  (400 * MS)
#define MORE_NS	     (150 * MS)    /* a single packet without an answer says nothing */
#define SENDS_NS     (5000 * MS)   /* so long after the last packet nobody waits for an answer any more … */
#define ASKS_NS	     (10000 * MS)  /* … and so long after the last begin of a handshake: there is one every 5 s */
#define USUAL_NS     (12000 * MS)  /* of a peer that only receives: 10 s, and the way */
#define N_ANSWERS    8		   /* before these a peer is taken for one that only receives */
#define LONGEST_NS   (300000 * MS) /* so long the longest silence is remembered */
#define KNOCK_NS     (100 * MS)
#define SEEK_NS	     (2400 * MS)   /* so long it is sought, then … */
#define ASK_NS	     (1000 * MS)   /* … it is asked for, and after twice as long again, up to … */
#define ASK_MAX_NS   (4000 * MS)
#define WAKE_NS	     (1000 * MS) /* between two wakes; doubled each time, up to … */
#define WAKE_MAX_NS  (512000 * MS)
#define PAUSE_NS     (10000 * MS) /* nothing was sent for so long */
#define TURN_NS	     (600 * MS)	  /* as for wakes */
#define TURN_MAX_NS  (60000 * MS)
#define TURNED_NS    (2000 * MS) /* an answer so long after a turn is none to it */
#define HANDSHAKE_NS (4000 * MS) /* WireGuard begins another after 5 s, a little less at times … */
#define N_AGAIN	     5		 /* … and is made to begin so many more */

static uint64_t doubled(uint64_t ns, uint32_t times, uint64_t most)
{
	for (uint32_t i = 0; i < times && ns < most; i++)
		ns *= 2;
	return ns < most ? ns : most;
}

void peer_silence_forget(struct peer_silence *silence)
{
	*silence = (struct peer_silence){
		.heard_ns = silence->heard_ns,
		.sent_ns = silence->sent_ns,
		.longest_ns = silence->longest_ns,
		.longest_at_ns = silence->longest_at_ns,
		.n_answers = silence->n_answers,
		.woken_ns = silence->woken_ns,
		.n_wakes = silence->n_wakes,
		.may_wake = silence->may_wake,
	};
}

/* So long nobody sent that those who have sent before do not wait any more. */
static bool has_ended(const struct peer_silence *silence, uint64_t now_ns)
{
	return now_ns > silence->sent_ns + (silence->handshake_ns != 0 ? ASKS_NS : SENDS_NS);
}

void peer_silence_sent(struct peer_silence *silence, uint64_t at_ns, bool is_handshake)
{
	if (at_ns <= silence->heard_ns) {
		if (at_ns > silence->sent_ns) { /* answered before we looked */
			silence->sent_ns = at_ns;
			silence->n_answers += silence->n_answers < N_ANSWERS;
		}
		return;
	}
	if (at_ns > silence->sent_ns && has_ended(silence, at_ns))
		peer_silence_forget(silence);
	/* One that was asked for by us is part of the last. */
	if (is_handshake && (silence->handshake_ns == 0 || at_ns >= silence->handshake_ns + HANDSHAKE_NS)) {
		silence->handshake_ns = at_ns;
		silence->again_ns = at_ns + PATIENCE_NS;
		silence->n_again = 0;
	}
	if (at_ns <= silence->sent_ns)
		return;
	if (at_ns >= silence->sent_ns + PAUSE_NS)
		silence->may_wake = true;
	silence->sent_ns = at_ns;
	if (silence->unanswered_ns == 0)
		silence->unanswered_ns = at_ns;
}

void peer_silence_moved(struct peer_silence *silence, uint64_t now_ns)
{
	if (silence->unanswered_ns != 0 && silence->turned_ns == 0)
		silence->unanswered_ns = now_ns;
}

static bool was_in_vain(const struct peer_silence *silence, uint64_t at_ns)
{
	return silence->turned_ns != 0 && at_ns >= silence->turned_ns + TURNED_NS;
}

/* A silence has ended; if not by our doing, it is a usual one. */
static void learn(struct peer_silence *silence, uint64_t at_ns)
{
	const uint64_t lasted_ns = at_ns - silence->unanswered_ns;

	if ((silence->turned_ns != 0 && !was_in_vain(silence, at_ns)) || silence->handshake_ns != 0 ||
	    has_ended(silence, at_ns))
		return;
	silence->n_answers += silence->n_answers < N_ANSWERS;
	if (lasted_ns < silence->longest_ns && at_ns - silence->longest_at_ns < LONGEST_NS)
		return;
	silence->longest_ns = lasted_ns < USUAL_NS ? lasted_ns : USUAL_NS;
	silence->longest_at_ns = at_ns;
}

bool peer_silence_heard(struct peer_silence *silence, uint64_t at_ns)
{
	if (at_ns <= silence->heard_ns)
		return false;
	silence->heard_ns = at_ns;
	if (silence->unanswered_ns == 0 || silence->unanswered_ns > at_ns) {
		if (silence->handshake_ns <= at_ns)
			silence->handshake_ns = 0;
		return false;
	}
	const bool in_vain = was_in_vain(silence, at_ns);
	learn(silence, at_ns);
	const uint64_t handshake_ns = silence->handshake_ns;
	peer_silence_forget(silence);
	if (handshake_ns > at_ns) {
		silence->handshake_ns = handshake_ns;
		silence->again_ns = handshake_ns + PATIENCE_NS;
	}
	/* What was sent last is as fresh as this. */
	silence->unanswered_ns = silence->sent_ns > at_ns ? silence->sent_ns : 0;
	return in_vain;
}

bool peer_silence_is_doubted(const struct peer_silence *silence, uint64_t now_ns)
{
	if (silence->unanswered_ns == 0 || now_ns < silence->unanswered_ns + PATIENCE_NS || has_ended(silence, now_ns))
		return false;
	return silence->handshake_ns != 0 || silence->sent_ns >= silence->unanswered_ns + MORE_NS;
}

/* When a silence is longer than usual. A handshake is answered at once. */
static uint64_t strange_ns(const struct peer_silence *silence)
{
	uint64_t patience_ns = silence->longest_ns + silence->longest_ns / 4;

	if (silence->n_answers < N_ANSWERS)
		patience_ns = USUAL_NS;
	if (silence->handshake_ns != 0 || patience_ns < PATIENCE_NS)
		patience_ns = PATIENCE_NS;
	return silence->unanswered_ns + patience_ns;
}

bool peer_silence_is_strange(const struct peer_silence *silence, uint64_t now_ns)
{
	return peer_silence_is_doubted(silence, now_ns) && now_ns >= strange_ns(silence);
}

bool peer_silence_is_sought(const struct peer_silence *silence, uint64_t now_ns)
{
	return peer_silence_is_strange(silence, now_ns) && now_ns < strange_ns(silence) + SEEK_NS;
}

static bool is_due_again(struct peer_silence *silence, uint64_t now_ns)
{
	if (silence->handshake_ns == 0 || silence->n_again == N_AGAIN || now_ns < silence->again_ns)
		return false;
	silence->n_again++;
	silence->again_ns = now_ns + PATIENCE_NS / 2 + silence->n_again * (PATIENCE_NS / 4);
	return true;
}

/* The peer may get all of it and just not answer: what was woken in vain is woken later and later. */
static bool is_wake_due(struct peer_silence *silence, uint64_t now_ns)
{
	const uint64_t since_ns = now_ns - silence->woken_ns;

	if (silence->woken_ns != 0 && since_ns >= 2 * WAKE_MAX_NS)
		silence->n_wakes = 0;
	if (silence->n_wakes > 0 && since_ns < doubled(WAKE_NS, silence->n_wakes - 1, WAKE_MAX_NS) &&
	    !(silence->may_wake && since_ns >= PAUSE_NS))
		return false;
	silence->may_wake = false;
	silence->woken_ns = now_ns;
	silence->n_wakes += silence->n_wakes < 32;
	return true;
}

static bool is_knock_due(struct peer_silence *silence, uint64_t now_ns)
{
	if (now_ns < silence->knock_ns || now_ns >= silence->unanswered_ns + PATIENCE_NS + SEEK_NS)
		return false;
	silence->knock_ns = now_ns + KNOCK_NS;
	return true;
}

static uint32_t seek_due(struct peer_silence *silence, uint64_t now_ns)
{
	if (now_ns < strange_ns(silence) + SEEK_NS)
		return PEER_SILENCE_SEEK;
	if (now_ns < silence->ask_ns)
		return 0;
	silence->ask_ns = now_ns + doubled(ASK_NS, silence->n_asks++, ASK_MAX_NS);
	return PEER_SILENCE_ASK;
}

uint32_t peer_silence_due(struct peer_silence *silence, uint64_t now_ns, uint64_t relay_ns)
{
	uint32_t due = 0;

	if (!peer_silence_is_doubted(silence, now_ns) || relay_ns < silence->unanswered_ns)
		return 0;
	if (is_knock_due(silence, now_ns))
		due |= PEER_SILENCE_KNOCK;
	if (is_wake_due(silence, now_ns))
		due |= PEER_SILENCE_WAKE;
	if (is_due_again(silence, now_ns))
		due |= PEER_SILENCE_AGAIN;
	if (!peer_silence_is_strange(silence, now_ns))
		return due;
	due |= seek_due(silence, now_ns);
	if (now_ns >= silence->turn_ns)
		due |= PEER_SILENCE_TURN;
	return due;
}

void peer_silence_turned(struct peer_silence *silence, uint64_t now_ns)
{
	if (silence->turned_ns == 0)
		silence->turned_ns = now_ns;
	silence->turn_ns = now_ns + doubled(TURN_NS, silence->n_turns++, TURN_MAX_NS);
}
