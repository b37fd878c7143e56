/*
 * What an agent of version 1 may say, and when. Pure.
 *
 *   LOGIN ── Login: token ──► REGISTER ── Register: name ──► FINISH ── FinishRegister ──► OPEN ⟲ Payload, Close
 *                  │ Ok            ▲             │ Ok, or Error: the end
 *                  └───────────────┘             └── the owner asks who it is and answers with v1_fsm_answer()
 *
 * The token is judged with the name: until then every Login is answered with Ok, so that nobody learns of a token alone
 * whether it is one. One name only.
 */
#pragma once

#include "relay/diglett/request_wire.h"
#include "relay/diglett/v1_wire.h"

enum v1_state { V1_IN_LOGIN, V1_IN_REGISTER, V1_IN_FINISH, V1_IS_OPEN };

struct v1_fsm {
	enum v1_state state;
	bool awaits_answer;
	uint16_t registration; /* of the agent's choice: in the high half of all ids */
	struct diglett_request request; /* wiped by its owner */
};

enum v1_event {
	V1_EV_LOGGED_IN, /* send Ok */
	V1_EV_ASKS,	 /* .request: answer with Ok and v1_fsm_answer(), or with Error, and the end */
	V1_EV_OPEN,	 /* visitors may come */
	V1_EV_CAME,	 /* payload for the visitor of this id */
	V1_EV_CLOSED,	 /* the visitor of this id */
	V1_EV_LEAVES,
	V1_EV_VIOLATION, /* send Error, and end */
};

void v1_fsm_init(struct v1_fsm *fsm);
/* How large a payload may be now: larger ones need not be waited for. */
size_t v1_fsm_max_payload(const struct v1_fsm *fsm);
/* payload: head->size bytes. */
P2P_CHECK enum v1_event v1_fsm_receive(struct v1_fsm *fsm, const struct v1_head *head, const uint8_t *payload);
void v1_fsm_answer(struct v1_fsm *fsm);
