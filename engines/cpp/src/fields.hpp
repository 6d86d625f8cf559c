// Reading JSON objects field by field: each has a type and a range, and none may be unknown.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "json.hpp"

namespace zmask {

// One object of the manifest; every reader throws ManifestError with the field's path.
class Fields {
 public:
  // `where` is the path of the object, "" at the top.
  Fields(const json::Value& value, std::string where);

  // Refuse fields that were not asked for: call it last.
  void done() const;

  bool has(std::string_view name);
  const json::Value& any(std::string_view name);
  std::string text(std::string_view name);
  bool boolean(std::string_view name);
  std::int64_t integer(std::string_view name, std::int64_t least,
                       std::int64_t most = std::numeric_limits<std::int64_t>::max());
  double number(std::string_view name, double least,
                double most = std::numeric_limits<double>::max());
  std::string one_of(std::string_view name, const std::vector<std::string_view>& choices);
  std::string hash(std::string_view name);
  bool is_null(std::string_view name);  // whether the field is there as null, or absent

  void each(std::string_view name, const std::function<void(const json::Value&, std::string)>& read);
  void each_member(std::string_view name,
                   const std::function<void(const json::Member&, std::string)>& read);

  std::string path(std::string_view name) const;
  [[noreturn]] static void fail(const std::string& where, const std::string& what);

 private:
  const json::Value::Object* object_;
  std::string where_;
  std::vector<std::string_view> known_;
};

// The same for a value that is no object's field.
std::string text_of(const json::Value& value, const std::string& where);
std::int64_t integer_of(const json::Value& value, const std::string& where, std::int64_t least,
                        std::int64_t most);
double number_of(const json::Value& value, const std::string& where, double least, double most);

}  // namespace zmask
