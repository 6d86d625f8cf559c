#include "fields.hpp"

#include <algorithm>

#include "manifest.hpp"
#include "utf8.hpp"

namespace zmask {

Fields::Fields(const json::Value& value, std::string where)
    : object_(value.object()), where_(std::move(where)) {
  if (object_ == nullptr) fail(where_, "is no object");
}

void Fields::fail(const std::string& where, const std::string& what) {
  throw ManifestError((where.empty() ? "it" : where) + " " + what);
}

std::string Fields::path(std::string_view name) const {
  const std::string shown = utf8::printable(name);
  return where_.empty() ? shown : where_ + "." + shown;
}

void Fields::done() const {
  for (const json::Member& member : *object_) {
    if (std::find(known_.begin(), known_.end(), member.name) == known_.end()) {
      fail(path(member.name), "is no known field");
    }
  }
}

bool Fields::has(std::string_view name) {
  known_.push_back(name);
  return json::find(*object_, name) != nullptr;
}

const json::Value& Fields::any(std::string_view name) {
  known_.push_back(name);
  const json::Value* value = json::find(*object_, name);
  if (value == nullptr) fail(path(name), "is missing");
  return *value;
}

std::string Fields::text(std::string_view name) { return text_of(any(name), path(name)); }

bool Fields::boolean(std::string_view name) {
  const bool* value = any(name).boolean();
  if (value == nullptr) fail(path(name), "is neither true nor false");
  return *value;
}

std::int64_t Fields::integer(std::string_view name, std::int64_t least, std::int64_t most) {
  return integer_of(any(name), path(name), least, most);
}

double Fields::number(std::string_view name, double least, double most) {
  return number_of(any(name), path(name), least, most);
}

std::string Fields::one_of(std::string_view name, const std::vector<std::string_view>& choices) {
  std::string value = text(name);
  if (std::find(choices.begin(), choices.end(), value) == choices.end()) {
    fail(path(name), "is none of its choices");
  }
  return value;
}

std::string Fields::hash(std::string_view name) {
  std::string value = text(name);
  const bool hex = value.find_first_not_of("0123456789abcdef") == std::string::npos;
  if (value.size() != 64 || !hex) fail(path(name), "is no sha256 of 64 hex digits");
  return value;
}

bool Fields::is_null(std::string_view name) { return !has(name) || any(name).is_null(); }

void Fields::each(std::string_view name,
                  const std::function<void(const json::Value&, std::string)>& read) {
  const json::Value::Array* values = any(name).array();
  if (values == nullptr) fail(path(name), "is no list");
  for (std::size_t i = 0; i < values->size(); ++i) {
    read((*values)[i], path(name) + "." + std::to_string(i));
  }
}

void Fields::each_member(std::string_view name,
                         const std::function<void(const json::Member&, std::string)>& read) {
  const json::Value::Object* members = any(name).object();
  if (members == nullptr) fail(path(name), "is no object");
  for (const json::Member& member : *members) {
    read(member, path(name) + "." + utf8::printable(member.name));
  }
}

std::string text_of(const json::Value& value, const std::string& where) {
  if (value.string() == nullptr) Fields::fail(where, "is no text");
  return *value.string();
}

std::int64_t integer_of(const json::Value& value, const std::string& where, std::int64_t least,
                        std::int64_t most) {
  if (value.integer() == nullptr) Fields::fail(where, "is no integer");
  if (*value.integer() < least || *value.integer() > most) Fields::fail(where, "is out of range");
  return *value.integer();
}

double number_of(const json::Value& value, const std::string& where, double least, double most) {
  if (value.integer() == nullptr && value.real() == nullptr) Fields::fail(where, "is no number");
  const double read =
      value.real() != nullptr ? *value.real() : static_cast<double>(*value.integer());
  if (!(read >= least && read <= most)) Fields::fail(where, "is out of range");
  return read;
}

}  // namespace zmask
