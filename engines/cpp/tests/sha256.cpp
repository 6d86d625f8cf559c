#include "sha256.hpp"

#include <string>

#include "check.hpp"

namespace {

std::string hash(const std::string& text, std::size_t step) {
  zmask::Sha256 digest;
  for (std::size_t at = 0; at < text.size(); at += step) {
    const std::string part = text.substr(at, step);
    digest.update(part.data(), part.size());
  }
  return digest.hex();
}

}  // namespace

int main() {
  // FIPS 180-4's examples.
  CHECK(hash("", 1) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hash("abc", 3) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 7) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  const std::string million(1000000, 'a');
  for (const std::size_t step : {1UL, 63UL, 64UL, 65UL, 4096UL, 1000000UL}) {
    CHECK(hash(million, step) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  }
  // Lengths around the padding's border: a hash must not depend on how the text was cut.
  for (std::size_t length = 50; length < 135; ++length) {
    const std::string text(length, 'x');
    CHECK(hash(text, 1) == hash(text, length));
  }
  return check::failures == 0 ? 0 : 1;
}
