#include "relay/diglett/request_wire.h"

#include <errno.h>
#include <sodium.h>

#define LAYOUT	    1
#define LAYOUT_NODE 2 /* with a badge; the token is empty */

int diglett_name_parse(const char *text, size_t len, struct host_name *ret)
{
	struct host_name name;

	if (host_name_from(text, len, &name) != 0 || strchr(name.text, '_'))
		return -EINVAL;
	*ret = name;
	return 0;
}

/* text has room for max + 1. */
static bool read_text(struct wire_reader *r, size_t len, size_t max, char lowest, char *text)
{
	if (len > max)
		return false;
	wire_bytes(r, text, len);
	text[len] = '\0';
	for (size_t i = 0; i < len; i++)
		if (text[i] < lowest || text[i] > '~')
			return false;
	return true;
}

static bool read_names(struct wire_reader *r, uint8_t n, struct host_name *names)
{
	if (n == 0 || n > DIGLETT_MAX_PORTS)
		return false;
	for (uint8_t i = 0; i < n; i++) {
		const size_t len = wire_u8(r);
		const uint8_t *text = wire_take(r, len);
		if (!text || diglett_name_parse((const char *)text, len, &names[i]) != 0)
			return false;
		for (uint8_t j = 0; j < i; j++)
			if (host_name_equal(&names[i], &names[j]))
				return false;
	}
	return true;
}

static void write_names(struct wire_writer *w, uint8_t n, const struct host_name *names)
{
	wire_put_u8(w, n);
	for (uint8_t i = 0; i < n; i++) {
		wire_put_u8(w, names[i].len);
		wire_put(w, names[i].text, names[i].len);
	}
}

size_t diglett_request_write(const struct diglett_request *request, uint8_t ret[DIGLETT_MAX_REQUEST])
{
	struct wire_writer w = wire_writer(ret, DIGLETT_MAX_REQUEST);

	const bool has_badge = request->badge.n_certificate > 0;

	wire_put_u8(&w, has_badge ? LAYOUT_NODE : LAYOUT);
	wire_put_u16(&w, request->max_streams);
	write_names(&w, request->n_ports, request->names);
	wire_put_u8(&w, (uint8_t)strlen(request->token));
	wire_put(&w, request->token, strlen(request->token));
	wire_put_u16(&w, (uint16_t)strlen(request->extra));
	wire_put(&w, request->extra, strlen(request->extra));
	if (has_badge) {
		wire_put_u16(&w, request->badge.n_certificate);
		wire_put(&w, request->badge.certificate, request->badge.n_certificate);
		wire_put_u8(&w, request->badge.n_signature);
		wire_put(&w, request->badge.signature, request->badge.n_signature);
	}
	return wire_written(&w);
}

static bool read_badge(struct wire_reader *r, struct node_badge *ret)
{
	ret->n_certificate = wire_u16(r);
	if (ret->n_certificate == 0 || ret->n_certificate > NODE_BADGE_MAX_CERTIFICATE)
		return false;
	wire_bytes(r, ret->certificate, ret->n_certificate);
	ret->n_signature = wire_u8(r);
	if (ret->n_signature == 0 || ret->n_signature > NODE_BADGE_MAX_SIGNATURE)
		return false;
	wire_bytes(r, ret->signature, ret->n_signature);
	return true;
}

static bool read_request(struct wire_reader *r, struct diglett_request *ret)
{
	const uint8_t layout = wire_u8(r);

	if (layout != LAYOUT && layout != LAYOUT_NODE)
		return false;
	ret->max_streams = wire_u16(r);
	ret->n_ports = wire_u8(r);
	if (ret->max_streams == 0 || ret->max_streams > MUX_MAX_STREAMS || !read_names(r, ret->n_ports, ret->names))
		return false;
	if (!read_text(r, wire_u8(r), DIGLETT_MAX_TOKEN, '!', ret->token) ||
	    !read_text(r, wire_u16(r), DIGLETT_MAX_EXTRA, ' ', ret->extra))
		return false;
	if (layout == LAYOUT_NODE && (ret->token[0] != '\0' || !read_badge(r, &ret->badge)))
		return false;
	return wire_done(r);
}

bool diglett_request_read(const uint8_t *bytes, size_t len, struct diglett_request *ret)
{
	struct wire_reader r = wire_reader(bytes, len);

	*ret = (struct diglett_request){ 0 };
	if (read_request(&r, ret))
		return true;
	diglett_request_wipe(ret);
	return false;
}

void diglett_request_wipe(struct diglett_request *request)
{
	sodium_memzero(request, sizeof(*request));
}

size_t diglett_answer_write(const struct diglett_answer *answer, uint8_t ret[DIGLETT_MAX_ANSWER])
{
	struct wire_writer w = wire_writer(ret, DIGLETT_MAX_ANSWER);

	wire_put_u8(&w, LAYOUT);
	wire_put_u8(&w, answer->is_accepted ? 0 : 1);
	if (answer->is_accepted) {
		write_names(&w, answer->n_ports, answer->names);
	} else {
		wire_put_u8(&w, answer->reason);
		wire_put_u8(&w, (uint8_t)strlen(answer->text));
		wire_put(&w, answer->text, strlen(answer->text));
	}
	return wire_written(&w);
}

static bool read_answer(struct wire_reader *r, struct diglett_answer *ret)
{
	if (wire_u8(r) != LAYOUT)
		return false;
	const uint8_t outcome = wire_u8(r);
	ret->is_accepted = outcome == 0;
	if (ret->is_accepted) {
		ret->n_ports = wire_u8(r);
		if (!read_names(r, ret->n_ports, ret->names))
			return false;
	} else {
		ret->reason = wire_u8(r);
		if (!read_text(r, wire_u8(r), MUX_MAX_TEXT, ' ', ret->text))
			return false;
	}
	return outcome <= 1 && wire_done(r);
}

bool diglett_answer_read(const uint8_t *bytes, size_t len, struct diglett_answer *ret)
{
	struct wire_reader r = wire_reader(bytes, len);

	*ret = (struct diglett_answer){ 0 };
	if (read_answer(&r, ret))
		return true;
	*ret = (struct diglett_answer){ 0 };
	return false;
}
