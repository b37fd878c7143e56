/*
 * Internal to the peer state machine: its constants, and the deeds its table names. peer_fsm.c
 * decides which deed, peer_deeds.c does it, peer_choice.c tells which way is best. Nobody else includes this.
 */
#pragma once

#include "actors/traffic_manager/peer_choice.h"
#include "actors/traffic_manager/peer_fsm.h"

#define MS(n) ((uint64_t)(n)*1000000u)

/* Establishing */
#define ATTEMPT_NS      MS(10000) /* "Timeout of 10s" */
#define BURST_ROUNDS    4         /* a NAT may open its filter late: two pings are not enough */
#define BURST_MIN_NS    MS(200)
#define BURST_JITTER_NS MS(50)
#define ROUND_NS        MS(1000)
#define OFFER_MIN_NS    MS(1000) /* between two rendezvous of ours */
#define OFFER_NEWS_NS   MS(200)  /* when our endpoints changed in between */
#define OFFER_AGAIN_NS  MS(3000) /* when nothing of the peer was heard since the last one */
#define PONG_MAX_AGE_US 5000000u /* an answer that comes later is not worth having */

/* Trying */
#define RETRY_MAX_S   600
#define RETRY_SOON_NS MS(60000) /* new traffic waits at most so long for a retry */
#define PROVEN_NS     MS(10000) /* a path that lived so long was no failure */

/* Established */
#define SILENCE_NS       MS(250) /* data went out and nothing came in: ask */
#define PROBE_WAIT_MAX   MS(400) /* for the answer, at most; else candidate_wait_ns() */
#define PROBE_NS         MS(50)  /* between the probes of a suspect path */
#define PROBE_SLOW_NS    MS(500) /* and after the first few */
#define LOST_PROBES      10      /* and more where some are lost anyway: meanwhile the relay carries a copy of all */
#define OTHERS_EACH      5       /* so many of them, as long as none of the other ways answers, a ping to those of which there is hope */
#define INSTEAD_PROBES   5       /* for another way that answers, while nothing carries a copy */
#define LOSS_PROBE_NS    MS(30)    /* between the probes before the doubt, where some are lost anyway */
#define LOSS_PROBES_MAX  6
#define LOST_TRAFFIC_NS  MS(550)  /* of doubt, with traffic that the relay can carry */
#define LOST_LOADED_NS   MS(3000) /* of doubt, when our own packets may be why there is no answer */
#define LOST_IDLE_NS     MS(5000) /* of silence, without: "not received in last 5s" */
#define LOST_IDLE_MIN_NS MS(1000)
#define KEEPALIVE_NS     MS(2000)  /* "Send pings every 2s", only without authenticated data */
#define UNUSED_NS        MS(50000) /* after PEER_IN_IDLE, which comes 10 s after the last packet */
#define TOO_BIG_NS       MS(60000)
#define SURVEY_EARLY_NS  MS(1000)
#define SURVEY_EARLY_N   3
#define SURVEY_NS        MS(10000)
#define SURVEY_SOON_NS   MS(2000) /* while a relay is preferred, or TURN's is all there is, or pings are lost */
#define CHECK_NS         MS(500) /* a pong so old says nothing of what the peer asks now */
#define RECENT_NS        MS(1000)
#define JUST_NOW_NS      MS(1000) /* a pong that young needs no second one to be believed */
#define ECHO_NS          MS(100)  /* between two pings to one address for being pinged from it */

/* Receipts */
#define RECEIPT_MAX_NS  MS(60000) /* an age above is none */
#define MISSING_LOOKS   3         /* so many with data, and none of it told: it does not arrive */
#define MISSING_LOOKS_MAX 8       /* where some is lost anyway */
#define ASK_NS          MS(100)   /* between the pings that ask for receipts */
#define CLOSE_NS        MS(550)   /* of doubt, then the address is closed to data */
#define BOTH_NS         MS(200)   /* of doubt with copies of all: both sides' first, or answers would have no way for long */
#define ALONE_NS        MS(150)   /* without copies by relay, until the peer looked twice and saw none, and we once */
#define ALONE_MAX_NS    MS(400)   /* so much later, at most, the last of them comes by relay */
#define ASK_QUIET_NS    MS(2000)  /* without data there is nothing to be learnt */
#define ASK_MAX_NS      MS(10000) /* nobody tells */

/* Load: pings wait behind our own packets, or are lost with them */
#define BULK_BYTES        4096     /* in a look, which is 50 ms: more than pings, calls and keys */
#define LOADED_NS         MS(1000) /* after the last bulk: a queue may still be there */
#define LOADED_PROBE_NS   MS(50)   /* between the probes then: a full queue drops some */
#define LOADED_WAIT_NS    MS(500)  /* for an answer to any of them … */
#define LOADED_PATIENT_NS MS(1500) /* … and at most, while data shows that the way works */

/* Loss, under traffic: how much of it there is takes many pings to tell */
#define WATCH_NS	 MS(1000)
#define PAUSE_NS	 MS(200) /* without data: it does not flow any more */
#define CLOSER_LOST	 2	 /* of the last CLOSER_OF: a closer look */
#define CLOSER_OF	 8
#define CLOSER_PINGS	 128	 /* to this way and to the relay */
#define CLOSER_NS	 MS(100) /* between them, or longer where answers take long */
#define CLOSER_AGAIN_NS	 MS(60000) /* and twice as long each time that it changed nothing */
#define CLOSER_AGAIN_MAX MS(600000)

/* Choosing */
#define BETTER_SURVEYS 2

#define NEVER      UINT64_MAX

static inline uint64_t peer_later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline uint64_t peer_sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* May what was sent then have waited behind our own packets? */
static inline bool peer_was_loaded(const struct peer_fsm *fsm, uint64_t then_ns)
{
	return fsm->loaded_ns && fsm->loaded_ns + LOADED_NS > then_ns;
}

struct peer_action *peer_add_action(struct peer_actions *out, enum peer_action_type type);
/* AKAs live from the first direct sign of the peer until the path is given up. */
bool peer_may_have_aka(enum peer_state state);
/* Takes back the AKAs of candidates that are gone, or all of them. */
void peer_remove_akas(struct peer_fsm *fsm, bool all, struct peer_actions *out);
/* The candidate (or the relay) that was pinged with in->tx_id, or NULL if we do not wait for it. */
struct peer_candidate *peer_pinged(struct peer_fsm *fsm, const struct peer_input *in,
				   uint32_t *ret_round_trip_us);

/* The best of the other ways that answered a ping sent since the path in use was doubted: an index, or -1. */
int peer_answered_since_doubt(const struct peer_fsm *fsm, uint64_t now_ns);

/* What the receipt says of the data that we sent: 1 it arrives, -1 it does not, 0 nothing. */
int peer_judge_receipt(const struct peer_fsm *fsm, const struct peer_input *in);

/* How often is a probe of the current way sent before it is doubted? Once, unless some are lost anyway. */
static inline uint32_t peer_probes_before_doubt(const struct peer_fsm *fsm)
{
	uint32_t n = 1 + fsm->usual_loss_permille / 25u;

	return n < LOSS_PROBES_MAX ? n : LOSS_PROBES_MAX;
}

/* A deed carries out an arrow: it changes the machine's data and adds actions, never the state. */
typedef void peer_deed(struct peer_fsm *fsm, const struct peer_input *in, struct peer_actions *out);

peer_deed deed_adopt;
peer_deed deed_ask_for_receipt;
peer_deed deed_believe_receipt;
peer_deed deed_close;
peer_deed deed_doubt_delivery;
peer_deed deed_answer;
peer_deed deed_answer_and_check;
peer_deed deed_answer_and_ping;
peer_deed deed_answer_by_relay;
peer_deed deed_begin;
peer_deed deed_begin_by_ping;
peer_deed deed_begin_by_rendezvous;
peer_deed deed_boot;
peer_deed deed_carry_big_by_relay;
peer_deed deed_carry_big_directly;
peer_deed deed_confirm;
peer_deed deed_doubt;
peer_deed deed_doubt_sending;
peer_deed deed_fail;
peer_deed deed_finalize;
peer_deed deed_forget;
peer_deed deed_forgive;
peer_deed deed_give_up;
peer_deed deed_hear;
peer_deed deed_hear_data;
peer_deed deed_hurry;
peer_deed deed_lose_relay;
peer_deed deed_measure_relay;
peer_deed deed_ping_others_round;
peer_deed deed_ping_the_new;
peer_deed deed_probe;
peer_deed deed_probe_again;
peer_deed deed_question;
peer_deed deed_question_and_offer;
peer_deed deed_rest;
peer_deed deed_retire;
peer_deed deed_send_offer;
peer_deed deed_send_pings_and_rendezvous;
peer_deed deed_send_pings_to_rendezvous;
peer_deed deed_send_pong_and_ping;
peer_deed deed_send_round;
peer_deed deed_survey;
peer_deed deed_take_rendezvous;
peer_deed deed_take_rendezvous_and_ping;
peer_deed deed_try_now;
peer_deed deed_try_soon;
peer_deed deed_use_other;
peer_deed deed_watch;
peer_deed deed_watch_loss;
peer_deed deed_wonder;
