#include "bundle.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <set>

#include "json.hpp"
#include "sha256.hpp"
#include "signature.hpp"
#include "utf8.hpp"

namespace zmask {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int number) noexcept : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  explicit operator bool() const noexcept { return number_ >= 0; }
  int operator*() const noexcept { return number_; }

 private:
  int number_;
};

// A regular file of an open folder; no link is followed, and no pipe is waited for.
class File {
 public:
  File(const Descriptor& folder, const std::string& name)
      : descriptor_(::openat(*folder, name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)) {
    struct stat status {};
    regular_ = descriptor_ && ::fstat(*descriptor_, &status) == 0 && S_ISREG(status.st_mode);
    if (regular_) size_ = static_cast<std::uint64_t>(status.st_size);
  }

  bool regular() const noexcept { return regular_; }
  std::uint64_t size() const noexcept { return size_; }

  // The next bytes, at most `room`; 0 at the end, none where reading fails.
  std::optional<std::size_t> read(char* into, std::size_t room) const noexcept {
    while (true) {
      const ssize_t count = ::read(*descriptor_, into, room);
      if (count >= 0) return static_cast<std::size_t>(count);
      if (errno != EINTR) return std::nullopt;
    }
  }

  // All bytes, or one more than `most` of a file that has more; none where reading fails.
  std::optional<std::string> read_all(std::size_t most) const {
    std::string text(most + 1, '\0');
    std::size_t held = 0;
    while (held < text.size()) {
      const auto count = read(text.data() + held, text.size() - held);
      if (!count) return std::nullopt;
      if (*count == 0) break;
      held += *count;
    }
    text.resize(held);
    return text;
  }

 private:
  Descriptor descriptor_;
  bool regular_ = false;
  std::uint64_t size_ = 0;
};

std::string read_text(const Descriptor& folder, const std::filesystem::path& shown) {
  const File file(folder, std::string(manifest_name));
  if (!file.regular()) {
    throw BundleError(shown.string() + " is no bundle: it has no readable " +
                          std::string(manifest_name) + ".",
                      "Give the folder that zmask-export build wrote.");
  }
  if (file.size() > json::max_bytes) throw bad_bundle(shown, "has a manifest of enormous size");
  const std::optional<std::string> text = file.read_all(json::max_bytes);
  if (!text) throw bad_bundle(shown, "has a manifest that cannot be read");
  return *text;
}

std::string read_signature(const Descriptor& folder, const std::filesystem::path& shown) {
  const std::string name(signature_name);
  const File file(folder, name);
  if (!file.regular()) throw bad_bundle(shown, "has something else than a file called " + name);
  const std::optional<std::string> text = file.read_all(signature_bytes);
  if (!text || text->size() != signature_bytes) {
    throw bad_bundle(shown, "has a damaged signature: " + name + " is not " +
                                std::to_string(signature_bytes) + " bytes long");
  }
  return *text;
}

void require_signature(const PublicKey& key, const std::optional<std::string>& signature,
                       const std::string& text, const std::filesystem::path& shown) {
  if (!signature) {
    throw BundleError("The bundle " + shown.string() + " is not signed.",
                      "Get it from who signs it, or sign it yourself with zmask-export sign.");
  }
  if (!key.holds(*signature, text)) {
    throw BundleError(
        "The bundle " + shown.string() + " is not signed with this key, or was changed since.",
        "Do not use it: get the bundle and the public key again from who signed it.");
  }
}

std::set<std::string> list(const Descriptor& folder, const std::filesystem::path& shown) {
  const int copy = ::fcntl(*folder, F_DUPFD_CLOEXEC, 0);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(copy < 0 ? nullptr : ::fdopendir(copy),
                                                   &::closedir);
  if (!stream) {
    if (copy >= 0) ::close(copy);
    throw bad_bundle(shown, "cannot be listed");
  }
  std::set<std::string> names;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string name = static_cast<const char*>(entry->d_name);
    if (name != "." && name != ".." && name != manifest_name) names.insert(name);
  }
  return names;
}

// Hash a file; its bytes are also appended to `kept` where that is given.
void check_file(const Descriptor& folder, const std::filesystem::path& shown,
                const std::string& name, const FileInfo& info, std::vector<char>* kept) {
  const File file(folder, name);
  if (!file.regular()) throw bad_bundle(shown, "has something else than a file called " + name);
  const BundleError changed = bad_bundle(shown, "has a changed file " + name);
  if (file.size() != info.bytes) throw changed;
  // The size is the file's own, so a manifest cannot claim memory that no file fills.
  if (kept != nullptr) kept->resize(static_cast<std::size_t>(info.bytes));
  std::vector<char> chunk(std::size_t{1} << 20);
  Sha256 digest;
  std::uint64_t held = 0;
  while (true) {
    const auto count = file.read(chunk.data(), chunk.size());
    if (!count) throw bad_bundle(shown, "has a file that cannot be read, " + name);
    if (*count == 0) break;
    if (*count > info.bytes - held) throw changed;
    digest.update(chunk.data(), *count);
    if (kept != nullptr) {
      std::copy_n(chunk.data(), *count, kept->begin() + static_cast<std::ptrdiff_t>(held));
    }
    held += *count;
  }
  if (held != info.bytes || digest.hex() != info.sha256) throw changed;
}

}  // namespace

BundleError bad_bundle(const std::filesystem::path& folder, const std::string& what) {
  return BundleError("The bundle " + folder.string() + " " + what + ".",
                     "Build it again, or copy it again.");
}

Bundle open_bundle(const std::filesystem::path& folder,
                   const std::function<std::string(const Manifest&)>& choose,
                   const std::optional<std::filesystem::path>& verify_key) {
  std::optional<PublicKey> key;
  if (verify_key) key.emplace(*verify_key);
  const Descriptor opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened) {
    throw BundleError(folder.string() + " is no bundle: it is no folder that can be opened.",
                      "Give the folder that zmask-export build wrote.");
  }
  const std::string text = read_text(opened, folder);
  std::set<std::string> present = list(opened, folder);
  std::optional<std::string> signature;
  if (present.erase(std::string(signature_name)) != 0) signature = read_signature(opened, folder);
  if (key) require_signature(*key, signature, text, folder);
  Bundle bundle;
  try {
    bundle.manifest = parse_manifest(text);
  } catch (const ManifestError& error) {
    throw bad_bundle(folder, std::string("has a damaged manifest (") + error.what() + ")");
  }
  const std::map<std::string, FileInfo>& files = bundle.manifest.files;
  for (const auto& [name, info] : files) {
    if (present.count(name) == 0) throw bad_bundle(folder, "lacks the file " + name);
  }
  for (const std::string& name : present) {
    if (files.count(name) == 0) {
      throw bad_bundle(folder, "has an extra file " + utf8::printable(name));
    }
  }
  const std::string chosen = choose(bundle.manifest);
  for (const auto& [name, info] : files) {
    check_file(opened, folder, name, info, name == chosen ? &bundle.bytes : nullptr);
  }
  return bundle;
}

}  // namespace zmask
