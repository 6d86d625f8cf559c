// Ed25519 signatures, through OpenSSL's libcrypto where this build has it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace zmask {

inline constexpr std::string_view signature_name = "manifest.sig";
inline constexpr std::size_t signature_bytes = 64;

class PublicKey {
 public:
  // file: PEM (SubjectPublicKeyInfo), or the key's 32 raw bytes.
  //
  // Throws InputError: it cannot be read, or is no such key; BackendUnavailableError: this build has no
  // OpenSSL.
  explicit PublicKey(const std::filesystem::path& file);
  ~PublicKey();
  PublicKey(const PublicKey&) = delete;
  PublicKey& operator=(const PublicKey&) = delete;

  // Whether a signature of 64 bytes is of all of `text`, and made with the private half.
  bool holds(const std::string& signature, const std::string& text) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace zmask
