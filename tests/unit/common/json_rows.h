/* Texts that a strict JSON parser must accept or refuse: for ours and for the oracle it is compared with. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define TEXT(s) s, sizeof(s) - 1

static const struct json_row {
	const char *text;
	size_t len;
	bool accepted;
	bool stricter; /* we refuse what jansson accepts, on purpose */
} json_rows[] = {
	{ TEXT("{}"), true, false },
	{ TEXT(" \t\r\n[1, 2.5, -0.5e3, true, false, null, \"x\"]\n"), true, false },
	{ TEXT("\"top\""), true, false },
	{ TEXT("999999999999999"), true, false },
	{ TEXT("\"\\u0041\\ud83d\\ude00\\n\\/\""), true, false },
	{ TEXT("\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""), true, false },
	{ TEXT("{\"a\":{\"b\":[[],{}]}}"), true, false },

	{ TEXT(""), false, false },
	{ TEXT("   "), false, false },
	{ TEXT("{} x"), false, false },
	{ TEXT("nullx"), false, false },
	{ TEXT("0x10"), false, false },
	{ TEXT("1e"), false, false },
	{ TEXT("01"), false, false },
	{ TEXT("-01"), false, false },
	{ TEXT("1."), false, false },
	{ TEXT("-.5"), false, false },
	{ TEXT("+1"), false, false },
	{ TEXT("-"), false, false },
	{ TEXT("1e400"), false, false },
	{ TEXT("NaN"), false, false },
	{ TEXT("[1,]"), false, false },
	{ TEXT("[1 2]"), false, false },
	{ TEXT("{\"a\":1,}"), false, false },
	{ TEXT("{\"a\" 1}"), false, false },
	{ TEXT("{a:1}"), false, false },
	{ TEXT("{\"a\":1,\"a\":2}"), false, false },
	{ TEXT("{\"a\":1,\"\\u0061\":2}"), false, false },
	{ TEXT("[{\"x\":[{\"k\":1,\"l\":2,\"k\":3}]}]"), false, false },
	{ TEXT("\xef\xbb\xbf{}"), false, false },
	{ TEXT("{}\0"), false, false },
	{ TEXT("[\x01 1]"), false, false },
	{ TEXT("\"a\x01\""), false, false },
	{ TEXT("\"a\tb\""), false, false },
	{ TEXT("\"a\0b\""), false, false },
	{ TEXT("\"\\u0000\""), false, false },
	{ TEXT("\"\\uZZZZ\""), false, false },
	{ TEXT("\"\\u12\""), false, false },
	{ TEXT("\"\\ud800\""), false, false },
	{ TEXT("\"\\ud800\\u0041\""), false, false },
	{ TEXT("\"\\udc00\""), false, false },
	{ TEXT("\"\\x41\""), false, false },
	{ TEXT("\"\xff\""), false, false },
	{ TEXT("\"\xc0\x80\""), false, false },
	{ TEXT("\"\xed\xa0\x80\""), false, false },
	{ TEXT("\"\xe0\x80\x80\""), false, false },
	{ TEXT("\"\xf4\x90\x80\x80\""), false, false },
	{ TEXT("\"\xe2\x82\""), false, false },
	{ TEXT("\"open"), false, false },
	{ TEXT("[[[["), false, false },
	{ TEXT("'x'"), false, false },
	{ TEXT("/* c */ 1"), false, false },
	{ TEXT("1000000000000000"), false, true },
	{ TEXT("1e15"), false, true },
	{ TEXT("9007199254740993"), false, true },
	{ TEXT("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"), false, true },
};
