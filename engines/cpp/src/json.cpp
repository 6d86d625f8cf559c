#include "json.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>
#include <utility>

#include "utf8.hpp"

namespace zmask::json {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Value document() {
    Value value = any(0);
    skip_space();
    if (at_ != text_.size()) fail("something stands after the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw ParseError(what + " at byte " + std::to_string(at_));
  }

  bool done() const noexcept { return at_ >= text_.size(); }
  char peek() const noexcept { return done() ? '\0' : text_[at_]; }

  void skip_space() noexcept {
    while (!done() && (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t')) ++at_;
  }

  bool take(char wanted) noexcept {
    if (done() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  void expect(char wanted) {
    skip_space();
    if (!take(wanted)) fail(std::string("'") + wanted + "' is missing");
  }

  bool take_word(std::string_view word) noexcept {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  // Recursion is as deep as the text, and the text no deeper than the limit.
  Value any(std::size_t depth) {
    if (depth > max_depth) fail("more than " + std::to_string(max_depth) + " levels");
    if (++values_ > max_values) fail("more than " + std::to_string(max_values) + " values");
    skip_space();
    switch (peek()) {
      case '{':
        return Value(Value::Content(object(depth)));
      case '[':
        return Value(Value::Content(array(depth)));
      case '"':
        return Value(Value::Content(string()));
      case 't':
        if (take_word("true")) return Value(Value::Content(true));
        break;
      case 'f':
        if (take_word("false")) return Value(Value::Content(false));
        break;
      case 'n':
        if (take_word("null")) return Value();
        break;
      default:
        if (peek() == '-' || digit()) return number();
    }
    if (done()) fail("the text ends too early");
    fail("no value");
  }

  Value::Object object(std::size_t depth) {
    Value::Object members;
    expect('{');
    skip_space();
    if (take('}')) return members;
    do {
      skip_space();
      if (peek() != '"') fail("a name is missing");
      std::string name = string();
      expect(':');
      members.push_back({std::move(name), any(depth + 1)});
      skip_space();
    } while (take(','));
    expect('}');
    std::sort(members.begin(), members.end(),
              [](const Member& a, const Member& b) { return a.name < b.name; });
    const auto twice =
        std::adjacent_find(members.begin(), members.end(),
                           [](const Member& a, const Member& b) { return a.name == b.name; });
    if (twice != members.end()) fail("a name stands twice in the object that ends");
    return members;
  }

  Value::Array array(std::size_t depth) {
    Value::Array values;
    expect('[');
    skip_space();
    if (take(']')) return values;
    do {
      values.push_back(any(depth + 1));
      skip_space();
    } while (take(','));
    expect(']');
    return values;
  }

  bool digit() const noexcept { return !done() && text_[at_] >= '0' && text_[at_] <= '9'; }

  void digits() {
    if (!digit()) fail("a digit is missing");
    while (digit()) ++at_;
  }

  Value number() {
    const std::size_t start = at_;
    bool whole = true;
    take('-');
    if (take('0')) {
      if (digit()) fail("a number starts with 0");
    } else {
      digits();
    }
    if (take('.')) {
      whole = false;
      digits();
    }
    if (take('e') || take('E')) {
      whole = false;
      if (!take('+')) take('-');
      digits();
    }
    const char* first = text_.data() + start;
    const char* last = text_.data() + at_;
    if (whole) {
      std::int64_t value = 0;
      if (std::from_chars(first, last, value).ec != std::errc()) fail("an integer is too large");
      return Value(Value::Content(value));
    }
    double value = 0;
    if (std::from_chars(first, last, value).ec != std::errc()) fail("a number is out of range");
    return Value(Value::Content(value));
  }

  std::string string() {
    expect('"');
    std::string out;
    while (true) {
      if (done()) fail("the text ends in a string");
      const auto byte = static_cast<unsigned char>(text_[at_]);
      if (byte == '"') break;
      if (byte < 0x20) fail("a control character stands in a string");
      if (byte == '\\') {
        ++at_;
        escape(out);
      } else {
        const std::size_t length = utf8::length_at(text_, at_);
        if (length == 0) fail("malformed UTF-8");
        out.append(text_, at_, length);
        at_ += length;
      }
    }
    ++at_;
    return out;
  }

  void escape(std::string& out) {
    static constexpr std::string_view letters = "\"\\/bfnrt";
    static constexpr std::string_view meanings = "\"\\/\b\f\n\r\t";
    if (take('u')) {
      utf8::append(out, code_point());
      return;
    }
    const std::size_t which = done() ? std::string_view::npos : letters.find(text_[at_]);
    if (which == std::string_view::npos) fail("an unknown escape");
    out.push_back(meanings[which]);
    ++at_;
  }

  char32_t code_point() {
    const char32_t first = four_hex();
    // Names go out as C strings, which would end there.
    if (first == 0) fail("NUL in a string");
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF || !take('\\') || !take('u')) fail("an unpaired surrogate");
    const char32_t second = four_hex();
    if (second < 0xDC00 || second > 0xDFFF) fail("an unpaired surrogate");
    return 0x10000 + ((first - 0xD800) << 10U) + (second - 0xDC00);
  }

  char32_t four_hex() {
    std::uint32_t value = 0;
    const std::string_view hex = text_.substr(std::min(at_, text_.size()), 4);
    const auto read = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
    if (hex.size() != 4 || read.ec != std::errc() || read.ptr != hex.data() + 4) {
      fail("an escape without four hex digits");
    }
    at_ += 4;
    return value;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::size_t values_ = 0;
};

}  // namespace

const Value* find(const Value::Object& object, std::string_view name) noexcept {
  const auto at = std::lower_bound(object.begin(), object.end(), name,
                                   [](const Member& m, std::string_view n) { return m.name < n; });
  return at != object.end() && at->name == name ? &at->value : nullptr;
}

Value parse(std::string_view text) {
  if (text.size() > max_bytes) {
    throw ParseError("more than " + std::to_string(max_bytes) + " bytes");
  }
  return Parser(text).document();
}

}  // namespace zmask::json
