/* One thing that p2pctl asks of a diglett server or an agent (diglett_orders.h). */
#pragma once

#include "relay/diglett/token_list.h"

enum diglett_order_kind {
	DIGLETT_ORDER_STATUS,
	DIGLETT_ORDER_END,
	DIGLETT_ORDER_TOKEN_CREATE,
	DIGLETT_ORDER_TOKEN_LIST,
	DIGLETT_ORDER_TOKEN_REVOKE,
};

struct diglett_order {
	enum diglett_order_kind kind;
	struct host_name name;	  /* end */
	struct token_entry token; /* token create: patterns and label */
	char id[TOKEN_ID_LEN + 1]; /* token revoke */
};
