// The tests' only tool: count what does not hold, and say where.
#pragma once

#include <cstdio>
#include <exception>
#include <string>

namespace check {

inline int failures = 0;

inline void that(bool holds, const char* what, const char* file, int line) {
  if (holds) return;
  std::fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
  ++failures;
}

// Whether `work` throws an `E` whose text contains `words`.
template <typename E, typename Work>
bool throws(Work&& work, const std::string& words) {
  try {
    work();
  } catch (const E& error) {
    if (std::string(error.what()).find(words) != std::string::npos) return true;
    std::fprintf(stderr, "says \"%s\" without \"%s\"\n", error.what(), words.c_str());
    return false;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "another exception: %s\n", error.what());
    return false;
  }
  std::fprintf(stderr, "no exception\n");
  return false;
}

}  // namespace check

#define CHECK(...) check::that((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
