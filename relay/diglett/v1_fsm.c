#include "relay/diglett/v1_fsm.h"

#include <assert.h>
#include <string.h>

#define MAX_NAME (HOST_NAME_MAX_LEN + 1) /* a last dot */

void v1_fsm_init(struct v1_fsm *fsm)
{
	*fsm = (struct v1_fsm){ .state = V1_IN_LOGIN, .request = { .max_streams = MUX_MAX_STREAMS } };
}

size_t v1_fsm_max_payload(const struct v1_fsm *fsm)
{
	switch (fsm->state) {
	case V1_IN_LOGIN:
		return DIGLETT_MAX_TOKEN;
	case V1_IN_REGISTER:
		return MAX_NAME;
	case V1_IN_FINISH:
		return 0;
	case V1_IS_OPEN:
		break;
	}
	return V1_MAX_PAYLOAD;
}

/* As a request of diglett/2 has them. */
static enum v1_event take_token(struct v1_fsm *fsm, const uint8_t *token, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (token[i] <= ' ' || token[i] > '~')
			return V1_EV_VIOLATION;
	memcpy(fsm->request.token, token, n);
	fsm->request.token[n] = '\0';
	fsm->state = V1_IN_REGISTER;
	return V1_EV_LOGGED_IN;
}

static enum v1_event take_name(struct v1_fsm *fsm, const struct v1_head *head, const uint8_t *name)
{
	if (diglett_name_parse((const char *)name, head->size, &fsm->request.names[0]) != 0)
		return V1_EV_VIOLATION;
	fsm->request.n_ports = 1;
	fsm->registration = (uint16_t)(head->id >> 16);
	fsm->state = V1_IN_FINISH;
	fsm->awaits_answer = true;
	return V1_EV_ASKS;
}

static enum v1_event take_when_open(const struct v1_head *head)
{
	switch (head->kind) {
	case V1_PAYLOAD:
		return V1_EV_CAME;
	case V1_CLOSE:
		return V1_EV_CLOSED;
	case V1_TERMINATE:
		return V1_EV_LEAVES;
	default:
		return V1_EV_VIOLATION;
	}
}

enum v1_event v1_fsm_receive(struct v1_fsm *fsm, const struct v1_head *head, const uint8_t *payload)
{
	assert(!fsm->awaits_answer);
	if (head->size > v1_fsm_max_payload(fsm))
		return V1_EV_VIOLATION;
	if (fsm->state == V1_IS_OPEN)
		return take_when_open(head);
	if (head->kind == V1_TERMINATE)
		return V1_EV_LEAVES;
	if (fsm->state == V1_IN_LOGIN && head->kind == V1_LOGIN)
		return take_token(fsm, payload, head->size);
	if (fsm->state == V1_IN_REGISTER && head->kind == V1_REGISTER)
		return take_name(fsm, head, payload);
	if (fsm->state != V1_IN_FINISH || head->kind != V1_FINISH_REGISTER)
		return V1_EV_VIOLATION;
	fsm->state = V1_IS_OPEN;
	return V1_EV_OPEN;
}

void v1_fsm_answer(struct v1_fsm *fsm)
{
	assert(fsm->awaits_answer);
	fsm->awaits_answer = false;
}
