// The unit tests' only helper: CHECK prints what failed and where, and main returns check_result().
#pragma once

#include <cstdio>
#include <string>

inline int& failed_checks() {
  static int count = 0;
  return count;
}

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      ++failed_checks();                                                           \
    }                                                                              \
  } while (false)

// The expression must throw `exception` with a message that contains `text`.
#define CHECK_THROWS(expression, exception, text)                                                  \
  do {                                                                                             \
    bool thrown = false;                                                                           \
    try {                                                                                          \
      expression;                                                                                  \
    } catch (const exception& error) {                                                             \
      thrown = std::string(error.what()).find(text) != std::string::npos;                          \
      if (!thrown) std::fprintf(stderr, "%s:%d: message: %s\n", __FILE__, __LINE__, error.what()); \
    }                                                                                              \
    if (!thrown) {                                                                                 \
      std::fprintf(stderr, "%s:%d: failed: %s throws \"%s\"\n", __FILE__, __LINE__, #expression,   \
                   std::string(text).c_str());                                                     \
      ++failed_checks();                                                                           \
    }                                                                                              \
  } while (false)

inline int check_result() {
  if (failed_checks() == 0) return 0;
  std::fprintf(stderr, "%d checks failed\n", failed_checks());
  return 1;
}
