// UTF-8, as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace zmask::utf8 {

// Bytes of the character that starts at `at`; 0 where there is no well-formed one.
std::size_t length_at(std::string_view text, std::size_t at) noexcept;

// Append a code point, which must be one.
void append(std::string& out, char32_t code);

// A name from outside for a message: what is no printable ASCII becomes '?', long ones are cut.
std::string printable(std::string_view text);

}  // namespace zmask::utf8
