#include "signature.hpp"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <zmask/zmask.hpp>

#include "check.hpp"

namespace {

std::string bytes(const std::string& hex) {
  std::string made;
  for (std::size_t at = 0; at < hex.size(); at += 2) {
    made.push_back(static_cast<char>(std::stoi(hex.substr(at, 2), nullptr, 16)));
  }
  return made;
}

}  // namespace

int main() {
  const std::filesystem::path folder = std::filesystem::temp_directory_path() /
                                       ("zmask_signature_" + std::to_string(::getpid()));
  std::filesystem::create_directory(folder);
  const auto file = [&](const std::string& name, const std::string& content) {
    std::ofstream(folder / name, std::ios::binary) << content;
    return folder / name;
  };
  // RFC 8032, 7.1, test 2.
  const std::string key =
      bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
  const std::string signature = bytes(
      "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
      "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
  const std::filesystem::path raw = file("raw", key);
#ifdef ZMASK_HAS_OPENSSL
  const zmask::PublicKey pub(raw);
  CHECK(pub.holds(signature, "\x72"));
  CHECK(!pub.holds(signature, "\x73"));
  CHECK(!pub.holds(signature, ""));
  CHECK(!pub.holds(signature.substr(1), "\x72"));
  CHECK(!pub.holds("", "\x72"));
  for (std::size_t at = 0; at < signature.size(); ++at) {
    std::string changed = signature;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    CHECK(!pub.holds(changed, "\x72"));
  }
  CHECK(check::throws<zmask::InputError>([&] { zmask::PublicKey(file("short", key.substr(1))); },
                                         "no Ed25519 public key"));
  CHECK(check::throws<zmask::InputError>([&] { zmask::PublicKey(file("empty", "")); },
                                         "no Ed25519 public key"));
  CHECK(check::throws<zmask::InputError>([&] { zmask::PublicKey(folder / "none"); },
                                         "cannot be read"));
  CHECK(check::throws<zmask::InputError>([&] { zmask::PublicKey key_of(folder); },
                                         "cannot be read"));
#else
  CHECK(check::throws<zmask::BackendUnavailableError>([&] { zmask::PublicKey key_of(raw); },
                                                      "no OpenSSL"));
#endif
  std::filesystem::remove_all(folder);
  return check::failures == 0 ? 0 : 1;
}
