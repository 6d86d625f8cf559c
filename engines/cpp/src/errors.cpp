// The error tree: destructors and codes, here so that each class's type lives in one place.
#include "zmask/zmask.hpp"

namespace zmask {

Error::Error(const std::string& what, const std::string& fix) : std::runtime_error(what), fix_(fix) {}
Error::~Error() = default;
int Error::exit_code() const noexcept { return 1; }

#define ZMASK_ERROR(name, code) \
  name::~name() = default;      \
  int name::exit_code() const noexcept { return code; }
ZMASK_ERROR(UsageError, 2)
ZMASK_ERROR(InputError, 4)
ZMASK_ERROR(ImageError, 4)
ZMASK_ERROR(BundleError, 4)
ZMASK_ERROR(ShapeError, 4)
ZMASK_ERROR(OutputError, 5)
ZMASK_ERROR(BackendError, 6)
ZMASK_ERROR(BackendUnavailableError, 6)
#undef ZMASK_ERROR

}  // namespace zmask
