// Run a bundle on one image and write the mask:
//
//     zmask_mask [--verify-key KEY.pub] BUNDLE IMAGE MASK.pgm [THRESHOLD]
//
// Prints one JSON line. With a bundle alone, only checks it. Exit codes are those of zmask-export.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <zmask/zmask.hpp>

#include "image_file.hpp"

namespace {

using Key = std::optional<std::filesystem::path>;

void check(const char* bundle, const Key& key) {
  const zmask::BundleInfo info = zmask::check(bundle, key);
  std::printf("{\"model\":\"%s\",\"height\":%zu,\"width\":%zu,\"threshold\":%.9g,\"outputs\":%zu}\n",
              info.model.c_str(), info.height, info.width, info.threshold, info.outputs.size());
}

void run(const char* bundle, const Key& key, const char* image, const char* out,
         std::optional<double> threshold) {
  zmask::Options options;
  options.verify_key = key;
  const zmask::Engine engine(bundle, options);
  const Picture picture = read_picture(image);
  const zmask::Result result =
      engine.run(zmask::ImageView{picture.pixels.data(), picture.height, picture.width}, threshold);
  const zmask::Span<const float> mask = result.mask();
  write_mask(out, mask.data(), engine.info().height, engine.info().width);
  const auto covered = std::count(mask.begin(), mask.end(), 0.0F);
  std::printf("{\"flag\":%s,\"score\":%.9g,\"threshold\":%.9g,\"covered\":%.9g,\"backend\":\"%s\"}\n",
              result.flag() ? "true" : "false", static_cast<double>(result.score()),
              result.threshold(), static_cast<double>(covered) / static_cast<double>(mask.size()),
              std::string(engine.backend()).c_str());
}

std::optional<double> number(const char* text) {
  try {
    return std::stod(text);
  } catch (const std::exception&) {
    throw zmask::UsageError(std::string(text) + " is no threshold.", "Give a number.");
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    Key key;
    if (count > 2 && std::string(arguments[1]) == "--verify-key") {
      key = arguments[2];
      count -= 2;
      arguments += 2;
    }
    if (count == 2) {
      check(arguments[1], key);
    } else if (count == 4 || count == 5) {
      run(arguments[1], key, arguments[2], arguments[3],
          count == 5 ? number(arguments[4]) : std::nullopt);
    } else {
      throw zmask::UsageError("There are too few or too many arguments.",
                              "zmask_mask [--verify-key KEY.pub] BUNDLE [IMAGE MASK.pgm [THRESHOLD]]");
    }
    return 0;
  } catch (const zmask::Error& error) {
    std::fprintf(stderr, "Error: %s\n  Fix: %s\n", error.what(), error.fix());
    return error.exit_code();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "Error: %s\n", error.what());
    return 1;
  }
}
