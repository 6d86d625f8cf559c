// manifest.json: its text to its content, every field of it checked.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "zmask/zmask.hpp"

namespace zmask {

inline constexpr std::int64_t schema_version = 1;
inline constexpr std::string_view manifest_name = "manifest.json";
inline constexpr std::string_view onnx_name = "protected.onnx";

struct FileInfo {
  std::string sha256;
  std::uint64_t bytes = 0;
};

struct EngineInfo {
  std::string file;
  std::string flavour;  // tensorrt or tensorrt-rtx
  std::string version;
};

struct Manifest {
  BundleInfo info;
  std::vector<EngineInfo> engines;
  std::map<std::string, FileInfo> files;
  std::optional<std::string> checksum;  // of the text that it was read from
};

// A manifest that cannot be used; the text says which field and why.
class ManifestError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Read a manifest: JSON, the schema version, all fields of that version and no others.
//
// Throws ManifestError.
Manifest parse_manifest(std::string_view text);

}  // namespace zmask
