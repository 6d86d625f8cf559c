// A bundle on disk: the manifest, and every file held against it.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
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
// verify_key: public key that the manifest must be signed with, which is checked before it is parsed;
// none takes signed and unsigned bundles.
// Throws BundleError: no bundle, not signed with the key, a damaged manifest, or a file that is missing,
// changed or extra; InputError, BackendUnavailableError: see PublicKey.
Bundle open_bundle(const std::filesystem::path& folder,
                   const std::function<std::string(const Manifest&)>& choose,
                   const std::optional<std::filesystem::path>& verify_key = {});

// The error of a bundle: "The bundle <folder> <what>."
BundleError bad_bundle(const std::filesystem::path& folder, const std::string& what);

}  // namespace zmask
