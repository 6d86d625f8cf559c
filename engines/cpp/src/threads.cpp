#include "threads.hpp"

#ifdef __linux__
#include <sched.h>
#include <unistd.h>
#endif

namespace zmask {

int cpu_threads(int asked) noexcept {
  if (asked > 0) return asked;
#ifdef __linux__
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  // Fails on machines with more cores than the set has room for; they are left to the runtime.
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    const int count = CPU_COUNT(&allowed);
    if (count < sysconf(_SC_NPROCESSORS_ONLN)) return count;
  }
#endif
  return 0;
}

}  // namespace zmask
