// A strict JSON reader for small files that nobody vouches for.
//
// Refused, besides what RFC 8259 forbids: names that stand twice in an object, integers beyond 64 bits,
// numbers beyond double, NUL in strings, unpaired surrogates, malformed UTF-8, a byte order mark, and
// more bytes, levels or values than the limits below. Nothing outside the text is read or run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace zmask::json {

constexpr std::size_t max_bytes = std::size_t{4} << 20;
constexpr std::size_t max_depth = 32;
constexpr std::size_t max_values = std::size_t{1} << 17;

// Not JSON by the rules above; says where.
class ParseError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Member;

class Value {
 public:
  using Array = std::vector<Value>;
  using Object = std::vector<Member>;  // sorted by name, each name once
  using Content =
      std::variant<std::nullptr_t, bool, std::int64_t, double, std::string, Array, Object>;

  Value() = default;
  explicit Value(Content content) : content_(std::move(content)) {}

  bool is_null() const noexcept { return std::holds_alternative<std::nullptr_t>(content_); }
  // Pointers to the content, nullptr where it is of another kind.
  const bool* boolean() const noexcept { return std::get_if<bool>(&content_); }
  const std::int64_t* integer() const noexcept { return std::get_if<std::int64_t>(&content_); }
  const double* real() const noexcept { return std::get_if<double>(&content_); }
  const std::string* string() const noexcept { return std::get_if<std::string>(&content_); }
  const Array* array() const noexcept { return std::get_if<Array>(&content_); }
  const Object* object() const noexcept { return std::get_if<Object>(&content_); }

 private:
  Content content_{nullptr};
};

struct Member {
  std::string name;
  Value value;
};

// The member of that name, or nullptr.
const Value* find(const Value::Object& object, std::string_view name) noexcept;

// Read one JSON text. Throws ParseError.
Value parse(std::string_view text);

}  // namespace zmask::json
