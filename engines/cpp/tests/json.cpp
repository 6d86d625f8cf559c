#include "json.hpp"

#include <string>

#include "check.hpp"

using zmask::json::find;
using zmask::json::parse;
using zmask::json::ParseError;

namespace {

bool refuses(const std::string& text, const std::string& words) {
  return check::throws<ParseError>([&] { parse(text); }, words);
}

std::string repeated(const std::string& text, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += text;
  return out;
}

void reads_values() {
  CHECK(parse(" null\n").is_null());
  CHECK(*parse("true").boolean() && !*parse("false").boolean());
  CHECK(*parse("-0").integer() == 0);
  CHECK(*parse("9223372036854775807").integer() == INT64_MAX);
  CHECK(*parse("-9223372036854775808").integer() == INT64_MIN);
  CHECK(*parse("1e3").real() == 1000.0);
  CHECK(*parse("-0.0625").real() == -0.0625);
  CHECK(*parse("0.06806221604347229").real() == 0.06806221604347229);
  CHECK(parse("[]").array()->empty() && parse("{}").object()->empty());
  CHECK(parse("[1, [2, \"x\"], {}]").array()->size() == 3);
}

void finds_members() {
  const auto document = parse(R"({"b": 1, "a": {"c": [2]}, "": 3})");
  const auto& object = *document.object();
  CHECK(*find(object, "b")->integer() == 1);
  CHECK(*find(object, "")->integer() == 3);
  CHECK(find(*find(object, "a")->object(), "c")->array()->size() == 1);
  CHECK(find(object, "z") == nullptr);
}

void reads_strings() {
  CHECK(*parse(R"("a\"\\\/\b\f\n\r\tz")").string() == "a\"\\/\b\f\n\r\tz");
  CHECK(*parse(R"("\u0041\u00e9\u20ac\ud83d\ude00")").string() ==
        "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  CHECK(*parse("\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"").string() ==
        "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
}

void refuses_what_is_no_json() {
  for (const char* text : {"", " ", "{", "[", "[1", "[1,", "{\"a\"", "{\"a\":", "{\"a\":1", "\"a",
                           "\"\\", "\"\\u12", "tru", "-", "1.", "1e", "1e+", ".5", "+1", "[1,]",
                           "{\"a\":1,}", "{1:2}", "{a:1}", "[1 2]", "nul", "True", "NaN",
                           "Infinity", "-Infinity", "'a'", "//", "[1]x", "01", "-01", "0x10"}) {
    CHECK(refuses(text, "at byte"));
  }
  CHECK(refuses("\xEF\xBB\xBF{}", "no value"));
  CHECK(refuses(std::string("[1]\0", 4), "after the end"));
  CHECK(refuses("\"a\nb\"", "control character"));
  CHECK(refuses(R"("\x")", "unknown escape"));
  CHECK(refuses(R"("\u12g4")", "four hex digits"));
  CHECK(refuses(R"("\u+123")", "four hex digits"));
  CHECK(refuses(R"({"a":1,"b":2,"a":3})", "twice"));
}

void refuses_bad_text() {
  CHECK(refuses("\"\xC3\"", "UTF-8"));              // cut short
  CHECK(refuses("\"\x80\"", "UTF-8"));              // a continuation alone
  CHECK(refuses("\"\xC0\xAF\"", "UTF-8"));          // overlong
  CHECK(refuses("\"\xE0\x80\xAF\"", "UTF-8"));      // overlong
  CHECK(refuses("\"\xF0\x80\x80\xAF\"", "UTF-8"));  // overlong
  CHECK(refuses("\"\xED\xA0\x80\"", "UTF-8"));      // a surrogate
  CHECK(refuses("\"\xF4\x90\x80\x80\"", "UTF-8"));  // above U+10FFFF
  CHECK(refuses("\"\xFF\"", "UTF-8"));
  CHECK(refuses("\"\xE2\x82", "UTF-8"));
  CHECK(refuses(R"("\u0000")", "NUL"));
  CHECK(refuses(R"("\ud83d")", "surrogate"));
  CHECK(refuses(R"("\ud83dx")", "surrogate"));
  CHECK(refuses(R"("\ude00")", "surrogate"));
  CHECK(refuses(R"("\ud83d\u0041")", "surrogate"));
}

void keeps_its_limits() {
  using namespace zmask::json;
  CHECK(parse(repeated("[", max_depth) + repeated("]", max_depth)).array() != nullptr);
  CHECK(refuses(repeated("[", max_depth + 2) + repeated("]", max_depth + 2), "levels"));
  CHECK(refuses(repeated("[", 1000000), "levels"));
  CHECK(refuses(repeated("{\"a\":", 500000), "levels"));
  CHECK(refuses("[" + repeated("0,", max_values) + "0]", "values"));
  CHECK(refuses("\"" + std::string(max_bytes, 'a') + "\"", "bytes"));
  CHECK(refuses("9223372036854775808", "too large"));
  CHECK(refuses("-9223372036854775809", "too large"));
  CHECK(refuses(repeated("9", 1000000), "too large"));
  CHECK(refuses("1e999", "out of range"));
  CHECK(refuses("-1.5e999999999999999999", "out of range"));
}

}  // namespace

int main() {
  reads_values();
  finds_members();
  reads_strings();
  refuses_what_is_no_json();
  refuses_bad_text();
  keeps_its_limits();
  return check::failures == 0 ? 0 : 1;
}
