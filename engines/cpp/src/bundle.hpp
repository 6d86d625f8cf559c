// A bundle on disk: the manifest, and every file held against it.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "manifest.hpp"

namespace zmask {

struct Bundle {
  Manifest manifest;
  // The bytes of the file that was chosen: the very ones that were hashed.
  std::vector<char> bytes;
};

// Open a bundle. Only the manifest is parsed; every other file is read once, through the folder that was
// opened first, and hashed. What `choose` names is kept in memory, so nothing that changes on disk
// afterwards, or while this runs, can reach a runtime.
//
// choose: from the manifest to the name of one of its files; "" keeps none.
// Throws BundleError: no bundle, a damaged manifest, or a file that is missing, changed or extra.
Bundle open_bundle(const std::filesystem::path& folder,
                   const std::function<std::string(const Manifest&)>& choose);

// The error of a bundle: "The bundle <folder> <what>."
BundleError bad_bundle(const std::filesystem::path& folder, const std::string& what);

}  // namespace zmask
