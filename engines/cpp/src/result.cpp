// Reading results by name and by image.
#include <algorithm>

#include "runner.hpp"

namespace zmask {

std::size_t size_of(DataType dtype) noexcept {
  switch (dtype) {
    case DataType::boolean:
      return 1;
    case DataType::int64:
      return 8;
    default:
      return 4;
  }
}

std::string_view name_of(DataType dtype) noexcept {
  switch (dtype) {
    case DataType::boolean:
      return "bool";
    case DataType::int32:
      return "int32";
    case DataType::int64:
      return "int64";
    default:
      return "float32";
  }
}

std::string one_line(const char* text) {
  constexpr std::size_t longest = 300;
  std::string out;
  for (const char* c = text; *c != '\0' && out.size() < longest; ++c) {
    const bool space = *c == ' ' || *c == '\n' || *c == '\r' || *c == '\t';
    if (!space) out.push_back(*c);
    if (space && !out.empty() && out.back() != ' ') out.push_back(' ');
  }
  return out;
}

void Output::require(DataType dtype) const {
  if (dtype_ != dtype) {
    throw UsageError("The output " + name_ + " is " + std::string(name_of(dtype_)) + ", not " +
                         std::string(name_of(dtype)) + ".",
                     "Read it as what it is.");
  }
}

template <>
Span<const float> Output::as<float>() const {
  require(DataType::float32);
  return {static_cast<const float*>(data_), size_};
}

template <>
Span<const std::int32_t> Output::as<std::int32_t>() const {
  require(DataType::int32);
  return {static_cast<const std::int32_t*>(data_), size_};
}

template <>
Span<const std::int64_t> Output::as<std::int64_t>() const {
  require(DataType::int64);
  return {static_cast<const std::int64_t*>(data_), size_};
}

template <>
Span<const bool> Output::as<bool>() const {
  static_assert(sizeof(bool) == 1, "runtimes give flags as bytes");
  require(DataType::boolean);
  return {static_cast<const bool*>(data_), size_};
}

namespace {

template <typename T>
Span<const T> of_image(const Result& result, std::string_view name, std::size_t image) {
  if (image >= result.size()) {
    throw UsageError("The batch has no image " + std::to_string(image) + ", it has " +
                         std::to_string(result.size()) + ".",
                     "Count images from 0.");
  }
  const Span<const T> all = result.output(name).template as<T>();
  const std::size_t each = all.size() / result.size();
  return {all.data() + image * each, each};
}

}  // namespace

bool Result::has(std::string_view name) const noexcept {
  return std::any_of(outputs_.begin(), outputs_.end(),
                     [&](const Output& output) { return output.name() == name; });
}

const Output& Result::output(std::string_view name) const {
  const auto at = std::find_if(outputs_.begin(), outputs_.end(),
                               [&](const Output& output) { return output.name() == name; });
  if (at == outputs_.end()) {
    throw UsageError("The engine has no output " + std::string(name) + ".",
                     "Choose one that Engine::info() lists.");
  }
  return *at;
}

bool Result::flag(std::size_t image) const { return of_image<bool>(*this, "flag", image)[0]; }

float Result::score(std::size_t image) const { return of_image<float>(*this, "score", image)[0]; }

Span<const float> Result::mask(std::size_t image) const {
  return of_image<float>(*this, "mask", image);
}

std::vector<std::uint8_t> Result::prediction(std::size_t image) const {
  const Span<const float> logits = of_image<float>(*this, "logits", image);
  const Span<const std::int64_t> shape = output("logits").shape();
  const auto classes = static_cast<std::size_t>(shape[1]);
  const std::size_t area = logits.size() / classes;
  std::vector<std::uint8_t> best(area, 0);
  std::vector<float> largest(logits.begin(), logits.begin() + area);
  for (std::size_t c = 1; c < classes; ++c) {
    const float* plane = logits.data() + c * area;
    for (std::size_t i = 0; i < area; ++i) {
      if (plane[i] > largest[i]) {
        largest[i] = plane[i];
        best[i] = static_cast<std::uint8_t>(c);
      }
    }
  }
  return best;
}

}  // namespace zmask
