// Bundles made here, and what is wrong with them. No runtime is needed.
#include "manifest.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "bundle.hpp"
#include "check.hpp"
#include "sha256.hpp"
#include "zmask/zmask.h"

namespace fs = std::filesystem;

namespace {

const std::string graph = "the graph's bytes";

std::string hash(const std::string& text) {
  zmask::Sha256 digest;
  digest.update(text.data(), text.size());
  return digest.hex();
}

std::string file_entry(const std::string& text) {
  return R"({"sha256": ")" + hash(text) + R"(", "bytes": )" + std::to_string(text.size()) + "}";
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape) {
  return R"({"name": ")" + name + R"(", "dtype": ")" + dtype + R"(", "shape": )" + shape +
         R"(, "range": "any", "meaning": "of a test"})";
}

const std::string manifest =
    R"({"schema_version": 1, "tool_version": "0.1.0", "name": "test", "model": "icnet",
    "policy": "gated", "precision": "fp32", "opset": 20, "classes": ["road", "sky"],
    "limits": {"detections": null, "candidates": 3, "score_threshold": 0.5, "iou_threshold": null},
    "input_size": [24, 32], "batch": null,
    "preprocess": {"mean": [0, 0.5, 0.25], "std": [1, 1, 0.5], "bgr": false}, "fill": "mean",
    "threshold": 0.25, "inputs": [)" +
    tensor("image", "float32", R"(["N", 3, 24, 32])") + "," + tensor("threshold", "float32", "[1]") +
    R"(], "outputs": [)" + tensor("logits", "float32", R"(["N", 2, 24, 32])") + "," +
    tensor("mask", "float32", R"(["N", 1, 24, 32])") + "," +
    tensor("score", "float32", R"(["N"])") + "," + tensor("flag", "bool", R"(["N"])") +
    R"(], "engines": [{"file": "protected.tensorrt-rtx.engine", "flavour": "tensorrt-rtx",
    "version": "1.7", "capabilities": ["8.9"], "activation_bytes": 5, "weight_bytes": null,
    "tf32": true, "batch": [1, 1, 4]}],
    "tolerances": {"logits_atol": 1e-3, "logits_rtol": 0.001, "logits_outliers": 0, "score_rtol": 1,
    "mask_iou": 0.999, "heatmap_rtol": 1.0e-4, "boxes_atol": null, "scores_atol": null},
    "weights_sha256": ")" +
    hash("weights") + R"(", "calibration_sha256": ")" + hash("calibration") +
    R"(", "versions": {"numpy": "2"}, "files": {"protected.onnx": )" + file_entry(graph) +
    R"(, "protected.tensorrt-rtx.engine": )" + file_entry("engine") + R"(, "empty": )" +
    file_entry("") + "}}";

void write(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// A whole bundle in a folder that goes with it.
class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "zmask-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path = name;
    write(path / "manifest.json", manifest);
    write(path / "protected.onnx", graph);
    write(path / "protected.tensorrt-rtx.engine", "engine");
    write(path / "empty", "");
  }
  ~Folder() { fs::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  bool refused(const std::string& words) const {
    return check::throws<zmask::BundleError>([&] { zmask::check(path); }, words);
  }

  fs::path path;
};

std::string with(std::string from, const std::string& to) {
  std::string text = manifest;
  const std::size_t at = text.find(from);
  CHECK(at != std::string::npos);
  return text.replace(at == std::string::npos ? 0 : at, from.size(), to);
}

bool refuses(const std::string& from, const std::string& to, const std::string& words) {
  return check::throws<zmask::ManifestError>([&] { zmask::parse_manifest(with(from, to)); }, words);
}

void a_whole_bundle_is_read() {
  const Folder folder;
  const zmask::BundleInfo info = zmask::check(folder.path);
  CHECK(info.name == "test" && info.model == "icnet" && info.policy == "gated");
  CHECK(info.height == 24 && info.width == 32 && !info.batch && info.threshold == 0.25);
  CHECK(info.classes == std::vector<std::string>{"road", "sky"});
  CHECK(info.inputs.size() == 2 && info.outputs.size() == 4);
  CHECK(info.outputs[0].shape == std::vector<std::int64_t>{-1, 2, 24, 32});
  CHECK(info.outputs[3].dtype == zmask::DataType::boolean);
  const zmask::Bundle bundle =
      zmask::open_bundle(folder.path, [](const zmask::Manifest&) { return "protected.onnx"; });
  CHECK(std::string(bundle.bytes.begin(), bundle.bytes.end()) == graph);
}

void what_a_manifest_may_not_say() {
  const std::string size = "\"input_size\": [24, 32]";
  CHECK(refuses("\"schema_version\": 1", "\"schema_version\": 2", "schema_version is 2, not 1"));
  CHECK(refuses("\"schema_version\": 1", "\"schema_version\": \"1\"", "no integer"));
  CHECK(refuses("\"opset\": 20,", "", "opset is missing"));
  CHECK(refuses("\"opset\": 20,", "\"opset\": 20, \"extra\": 1,", "extra is no known field"));
  CHECK(refuses("\"bgr\": false", "\"bgr\": 0", "preprocess.bgr"));
  CHECK(refuses("[1, 1, 0.5]", "[1, 0, 0.5]", "preprocess.std.1"));
  CHECK(refuses("[1, 1, 0.5]", "[1, 1]", "preprocess.std"));
  CHECK(refuses("\"gated\"", "\"never\"", "policy"));
  CHECK(refuses("\"threshold\": 0.25", "\"threshold\": -1", "threshold is out of range"));
  CHECK(refuses("\"threshold\": 0.25", "\"threshold\": null", "threshold is no number"));
  CHECK(refuses(size, "\"input_size\": [24, 16385]", "input_size.1"));
  CHECK(refuses(size, "\"input_size\": [0, 32]", "input_size.0"));
  CHECK(refuses(size, "\"input_size\": [24]", "input_size"));
  CHECK(refuses(size, "\"input_size\": [24, 33]", "describes image wrongly"));
  CHECK(refuses("[\"N\", 2, 24, 32]", "[\"N\", -2, 24, 32]", "outputs.0.shape.1"));
  CHECK(refuses("[\"N\", 2, 24, 32]", "[\"N\", \"N\", 24, 32]", "outputs.0.shape.1"));
  CHECK(refuses("[\"N\", 2, 24, 32]", "[2, 24, 32]", "without the batch"));
  CHECK(refuses("[\"N\", 2, 24, 32]", "[\"N\", 1099511627776, 2]", "too large"));
  CHECK(refuses("[\"N\", 2, 24, 32]", "[\"N\", 9223372036854775807]", "out of range"));
  CHECK(refuses("\"logits\"", "\"mask\"", "name of another"));
  CHECK(refuses("\"logits\"", "\"\"", "no name"));
  CHECK(refuses("\"score\", \"dtype\": \"float32\"", "\"score\", \"dtype\": \"int64\"",
                "describes score wrongly"));
  CHECK(refuses("\"float32\"", "\"float33\"", "dtype"));
  CHECK(refuses("\"bytes\": 17", "\"bytes\": -17", "bytes is out of range"));
  CHECK(refuses("\"bytes\": 17", "\"bytes\": 17.0", "bytes is no integer"));
  CHECK(refuses("\"protected.onnx\": {\"sha256\": \"", "\"protected.onnx\": {\"sha256\": \"0",
                "no sha256"));
  CHECK(refuses("\"batch\": [1, 1, 4]", "\"batch\": [1, 4]", "engines.0.batch"));
  for (const char* name : {"../onnx", "/etc/passwd", ".onnx", "a/b", "a b", "", "a\\u00e9", "-a"}) {
    CHECK(refuses("\"protected.onnx\"", "\"" + std::string(name) + "\"", "no plain file name"));
  }
  CHECK(refuses("{\"file\": \"protected.tensorrt-rtx.engine\"", "{\"file\": \"manifest.json\"",
                "not listed"));
  CHECK(check::throws<zmask::ManifestError>([] { zmask::parse_manifest("[]"); }, "no object"));
}

// Every beginning of a manifest is refused, and so is one with any byte turned over, unless the byte
// stands in free text.
void damage_never_gets_further_than_the_reader() {
  for (std::size_t cut = 0; cut < manifest.size(); ++cut) {
    CHECK(check::throws<zmask::ManifestError>(
        [&] { zmask::parse_manifest(std::string_view(manifest).substr(0, cut)); }, ""));
  }
  for (std::size_t at = 0; at < manifest.size(); ++at) {
    for (const unsigned flip : {0x01U, 0x20U, 0x80U, 0xFFU}) {
      std::string text = manifest;
      text[at] = static_cast<char>(static_cast<unsigned char>(text[at]) ^ flip);
      try {
        zmask::parse_manifest(text);
      } catch (const zmask::ManifestError&) {
        continue;
      }
    }
  }
}

void what_a_folder_may_not_hold() {
  {
    const Folder folder;
    write(folder.path / "extra", "");
    CHECK(folder.refused("has an extra file extra"));
  }
  {
    const Folder folder;
    fs::create_directory(folder.path / ".hidden");
    CHECK(folder.refused("has an extra file .hidden"));
  }
  {
    const Folder folder;
    fs::remove(folder.path / "empty");
    CHECK(folder.refused("lacks the file empty"));
  }
  {
    const Folder folder;
    fs::rename(folder.path / "empty", folder.path / "other");
    CHECK(folder.refused("lacks the file empty"));
  }
  {
    const Folder folder;
    fs::rename(folder.path / "empty", folder.path.string() + "-moved");
    fs::create_symlink(folder.path.string() + "-moved", folder.path / "empty");
    CHECK(folder.refused("something else than a file called empty"));
    fs::remove(folder.path.string() + "-moved");
  }
  {
    const Folder folder;
    fs::remove(folder.path / "empty");
    CHECK(::mkfifo((folder.path / "empty").c_str(), 0600) == 0);
    CHECK(folder.refused("something else than a file called empty"));
  }
  {
    const Folder folder;
    fs::remove(folder.path / "empty");
    fs::create_directory(folder.path / "empty");
    CHECK(folder.refused("something else than a file called empty"));
  }
  {
    const Folder folder;
    write(folder.path / "protected.onnx", graph + "x");
    CHECK(folder.refused("has a changed file protected.onnx"));
  }
  {
    const Folder folder;
    write(folder.path / "protected.onnx", graph.substr(1));
    CHECK(folder.refused("has a changed file protected.onnx"));
  }
}

void every_byte_of_every_file_counts() {
  for (const std::string name : {"protected.onnx", "protected.tensorrt-rtx.engine"}) {
    const std::string text = name == "protected.onnx" ? graph : "engine";
    const Folder folder;
    for (std::size_t at = 0; at < text.size(); ++at) {
      std::string flipped = text;
      flipped[at] = static_cast<char>(flipped[at] ^ 1);
      write(folder.path / name, flipped);
      CHECK(folder.refused("has a changed file " + name));
    }
  }
}

void what_is_no_bundle() {
  const Folder folder;
  CHECK(check::throws<zmask::BundleError>([&] { zmask::check(folder.path / "none"); }, "no bundle"));
  CHECK(check::throws<zmask::BundleError>([&] { zmask::check(folder.path / "empty"); }, "no bundle"));
  CHECK(check::throws<zmask::BundleError>([] { zmask::check(""); }, "no bundle"));
  fs::rename(folder.path / "manifest.json", folder.path / "protected.onnx");
  CHECK(folder.refused("no readable manifest.json"));
  fs::create_symlink(folder.path / "protected.onnx", folder.path / "manifest.json");
  CHECK(folder.refused("no readable manifest.json"));
  fs::remove(folder.path / "manifest.json");
  write(folder.path / "manifest.json", std::string((4U << 20U) + 1, ' '));
  CHECK(folder.refused("enormous"));
  write(folder.path / "manifest.json", std::string(4U << 20U, '['));
  CHECK(folder.refused("levels"));
}

void the_c_interface_gives_codes() {
  const Folder folder;
  CHECK(zmask_check(folder.path.c_str()) == ZMASK_OK && *zmask_last_error() == '\0');
  write(folder.path / "empty", "full");
  CHECK(zmask_check(folder.path.c_str()) == ZMASK_ERROR_INPUT);
  CHECK(std::string(zmask_last_error()).find("changed file empty") != std::string::npos);
  CHECK(std::string(zmask_last_fix()) == "Build it again, or copy it again.");
  CHECK(zmask_check(nullptr) == ZMASK_ERROR_USAGE);
  CHECK(zmask_check_signed(folder.path.c_str(), nullptr) == ZMASK_ERROR_USAGE);
  // An empty path is a key that is not there, and not "no key".
  const int no_key = zmask_check_signed(folder.path.c_str(), "");
  CHECK(no_key == ZMASK_ERROR_INPUT || no_key == ZMASK_ERROR_BACKEND);
  CHECK(std::string(zmask_last_error()).find("bundle") == std::string::npos);
  zmask_engine* engine = nullptr;
  CHECK(zmask_engine_load(folder.path.c_str(), nullptr, nullptr) == ZMASK_ERROR_USAGE);
  CHECK(zmask_engine_load(nullptr, nullptr, &engine) == ZMASK_ERROR_USAGE && engine == nullptr);
  zmask_options options{9, 0, 0, nullptr};
  CHECK(zmask_engine_load(folder.path.c_str(), &options, &engine) == ZMASK_ERROR_USAGE);
  options = {0, 0, -1, nullptr};
  CHECK(zmask_engine_load(folder.path.c_str(), &options, &engine) == ZMASK_ERROR_USAGE);
  write(folder.path / "empty", "");
  // The graph is none: refused by the runtime where there is one, for want of one elsewhere.
  CHECK(zmask_engine_load(folder.path.c_str(), nullptr, &engine) == ZMASK_ERROR_BACKEND);
  CHECK(engine == nullptr && *zmask_last_error() != '\0' && *zmask_last_fix() != '\0');
  zmask_engine_free(nullptr);
  zmask_result_free(nullptr);
}

}  // namespace

int main() {
  a_whole_bundle_is_read();
  what_a_manifest_may_not_say();
  damage_never_gets_further_than_the_reader();
  what_a_folder_may_not_hold();
  every_byte_of_every_file_counts();
  what_is_no_bundle();
  the_c_interface_gives_codes();
  return check::failures == 0 ? 0 : 1;
}
