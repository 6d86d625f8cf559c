#include "threads.hpp"

#ifdef __linux__
#include <sched.h>
#include <unistd.h>
#endif

#include "check.hpp"

int main() {
  CHECK(zmask::cpu_threads(1) == 1);
  CHECK(zmask::cpu_threads(3) == 3);
#ifdef __linux__
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  CHECK(sched_getaffinity(0, sizeof allowed, &allowed) == 0);
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  CHECK(zmask::cpu_threads(0) == (CPU_COUNT(&allowed) < cores ? CPU_COUNT(&allowed) : 0));
  int first = 0;
  while (!CPU_ISSET(first, &allowed)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(zmask::cpu_threads(0) == (cores > 1 ? 1 : 0));
  CHECK(zmask::cpu_threads(4) == 4);
#else
  CHECK(zmask::cpu_threads(0) == 0);
#endif
  return check::failures == 0 ? 0 : 1;
}
