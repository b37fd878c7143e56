/* The few macros every file may use. */
#pragma once

#include <stddef.h>

#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define ARRAY_LEN(a)			(sizeof(a) / sizeof(*(a)))
#define P2P_PRINTF(fmt, args)		__attribute__((format(printf, fmt, args)))
#define P2P_CHECK			__attribute__((warn_unused_result))
#define P2P_CLEANUP(fn)			__attribute__((cleanup(fn)))
