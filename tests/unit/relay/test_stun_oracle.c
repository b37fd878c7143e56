/*
 * Our STUN codec against libnice's, where that is installed: each reads what the other writes.
 */
#include "common/stun_wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Both have these names. */
#define STUN_REQUEST	THEIR_REQUEST
#define STUN_INDICATION THEIR_INDICATION
#define STUN_ERROR	THEIR_ERROR
#include <stun/stunagent.h>
#undef STUN_REQUEST
#undef STUN_INDICATION
#undef STUN_ERROR

static void expect(bool holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "line %d: does not hold: %s\n", line, what);
	abort();
}
#define EXPECT(condition) expect(condition, #condition, __LINE__)

static const uint16_t known[] = { STUN_ATTRIBUTE_XOR_MAPPED_ADDRESS, 0 };

static void oracle_init(StunAgent *agent)
{
	stun_agent_init(agent, known, STUN_COMPATIBILITY_RFC5389,
			STUN_AGENT_USAGE_USE_FINGERPRINT | STUN_AGENT_USAGE_IGNORE_CREDENTIALS);
}

static struct endpoint at(const char *text)
{
	struct endpoint endpoint;

	EXPECT(endpoint_parse(text, &endpoint) == 0);
	return endpoint;
}

static void test_our_question_is_understood_and_we_understand_the_answer(const char *mapped_text)
{
	StunAgent agent;
	StunMessage their_question, their_answer;
	struct stun_message question, answer;
	struct endpoint mapped = at(mapped_text);
	struct sockaddr_storage address;
	uint8_t asked[STUN_MAX_LEN], answered[STUN_MAX_LEN];
	oracle_init(&agent);

	stun_make_request(&question, &(struct stun_tx){ { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 } });
	size_t n = stun_encode(asked, sizeof(asked), &question);
	EXPECT(stun_agent_validate(&agent, &their_question, asked, n, NULL, NULL) == STUN_VALIDATION_SUCCESS);
	EXPECT(stun_message_get_class(&their_question) == THEIR_REQUEST);
	EXPECT(stun_agent_init_response(&agent, &their_answer, answered, sizeof(answered), &their_question));
	socklen_t len = endpoint_to_sockaddr(&mapped, &address);
	EXPECT(stun_message_append_xor_addr(&their_answer, STUN_ATTRIBUTE_XOR_MAPPED_ADDRESS, &address, len) ==
	       STUN_MESSAGE_RETURN_SUCCESS);
	n = stun_agent_finish_message(&agent, &their_answer, NULL, 0);

	EXPECT(stun_decode(answered, n, &answer) == 0);
	EXPECT(answer.class == STUN_SUCCESS && answer.has_fingerprint && stun_tx_equal(&answer.tx, &question.tx));
	EXPECT(endpoint_equal(&answer.mapped, &mapped));
}

static void test_we_understand_a_question_and_our_answer_is_understood(const char *mapped_text)
{
	StunAgent agent;
	StunMessage their_question, our_answer;
	struct stun_message question;
	struct endpoint mapped = at(mapped_text);
	struct sockaddr_storage address;
	socklen_t len = sizeof(address);
	uint8_t asked[STUN_MAX_LEN], answered[STUN_MAX_LEN];
	oracle_init(&agent);

	EXPECT(stun_agent_init_request(&agent, &their_question, asked, sizeof(asked), STUN_BINDING));
	size_t n = stun_agent_finish_message(&agent, &their_question, NULL, 0);
	EXPECT(stun_decode(asked, n, &question) == 0);
	EXPECT(question.class == STUN_REQUEST && question.method == STUN_METHOD_BINDING && question.has_fingerprint);

	struct stun_message answer = { .class = STUN_SUCCESS,
				       .method = STUN_METHOD_BINDING,
				       .tx = question.tx,
				       .has_fingerprint = true,
				       .mapped = mapped,
				       .response_origin = mapped };
	n = stun_encode(answered, sizeof(answered), &answer);
	EXPECT(stun_agent_validate(&agent, &our_answer, answered, n, NULL, NULL) == STUN_VALIDATION_SUCCESS);
	EXPECT(stun_message_find_xor_addr(&our_answer, STUN_ATTRIBUTE_XOR_MAPPED_ADDRESS, &address, &len) ==
	       STUN_MESSAGE_RETURN_SUCCESS);
	struct endpoint seen = endpoint_from_sockaddr((struct sockaddr *)&address);
	EXPECT(endpoint_equal(&seen, &mapped));
}

int main(void)
{
	static const char *const mapped[] = { "192.0.2.1:32853", "[2001:db8::1:2]:9" };

	for (int i = 0; i < 2; i++) {
		test_our_question_is_understood_and_we_understand_the_answer(mapped[i]);
		test_we_understand_a_question_and_our_answer_is_understood(mapped[i]);
	}
	puts("ok");
	return 0;
}
