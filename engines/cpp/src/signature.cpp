#include "signature.hpp"

#include <zmask/zmask.hpp>

#ifdef ZMASK_HAS_OPENSSL
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <fstream>
#endif

namespace zmask {

#ifdef ZMASK_HAS_OPENSSL

namespace {

constexpr std::size_t raw_bytes = 32;
constexpr std::size_t max_bytes = std::size_t{64} << 10;

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

const unsigned char* bytes_of(const std::string& text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

std::string read_key(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::string data(max_bytes, '\0');
  stream.read(data.data(), static_cast<std::streamsize>(data.size()));
  // A folder opens as a stream, and fails to be read.
  if (stream.bad() || (!stream.eof() && stream.fail())) {
    throw InputError("The key " + file.string() + " cannot be read.",
                     "Give a key file that zmask-export keygen wrote.");
  }
  data.resize(static_cast<std::size_t>(stream.gcount()));
  return data;
}

Owned<EVP_PKEY> parse_key(const std::string& data) {
  if (data.size() == raw_bytes) {
    return {EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, bytes_of(data), data.size()),
            &EVP_PKEY_free};
  }
  const std::unique_ptr<BIO, int (*)(BIO*)> text(
      BIO_new_mem_buf(data.data(), static_cast<int>(data.size())), &BIO_free);
  return {text ? PEM_read_bio_PUBKEY(text.get(), nullptr, nullptr, nullptr) : nullptr,
          &EVP_PKEY_free};
}

}  // namespace

struct PublicKey::Impl {
  Owned<EVP_PKEY> key;
};

PublicKey::PublicKey(const std::filesystem::path& file) {
  Owned<EVP_PKEY> key = parse_key(read_key(file));
  ERR_clear_error();  // what it left behind is of no use to the thread's other callers
  if (!key || EVP_PKEY_base_id(key.get()) != EVP_PKEY_ED25519) {
    throw InputError("The key " + file.string() + " is no Ed25519 public key in PEM.",
                     "Give the .pub file that keygen wrote.");
  }
  impl_ = std::make_unique<const Impl>(Impl{std::move(key)});
}

PublicKey::~PublicKey() = default;

bool PublicKey::holds(const std::string& signature, const std::string& text) const {
  const Owned<EVP_MD_CTX> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  const bool held =
      signature.size() == signature_bytes && context &&
      EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, impl_->key.get()) == 1 &&
      EVP_DigestVerify(context.get(), bytes_of(signature), signature.size(), bytes_of(text),
                       text.size()) == 1;
  ERR_clear_error();
  return held;
}

#else

struct PublicKey::Impl {};

PublicKey::PublicKey(const std::filesystem::path&) {
  throw BackendUnavailableError("This build of zmask has no OpenSSL, which checks signatures.",
                                "Build it with -DZMASK_WITH_OPENSSL=ON, or give no key.");
}

PublicKey::~PublicKey() = default;

bool PublicKey::holds(const std::string&, const std::string&) const { return false; }

#endif

}  // namespace zmask
