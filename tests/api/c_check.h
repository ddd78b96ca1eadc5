/* SPDX-License-Identifier: Apache-2.0
 * Checks of the tests in C, which have no framework.
 */
#ifndef QUERN_TESTS_C_CHECK_H
#define QUERN_TESTS_C_CHECK_H

#include <stdio.h>

static int failures = 0;

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            ++failures;                                                             \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                           \
    } while (0)

#endif
