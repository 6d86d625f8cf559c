#include "manifest.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>

#include "fields.hpp"
#include "json.hpp"
#include "sha256.hpp"
#include "utf8.hpp"

namespace zmask {
namespace {

constexpr std::int64_t max_side = 16384;
constexpr std::int64_t max_batch = 65536;
constexpr std::int64_t max_elements = std::int64_t{1} << 40;
constexpr double lowest = std::numeric_limits<double>::lowest();
constexpr double highest = std::numeric_limits<double>::max();
constexpr double tiniest = std::numeric_limits<double>::denorm_min();

void require(bool holds, const std::string& where, const std::string& what) {
  if (!holds) Fields::fail(where, what);
}

DataType dtype_of(const std::string& text, const std::string& where) {
  for (const DataType dtype :
       {DataType::float32, DataType::int32, DataType::int64, DataType::boolean}) {
    if (text == name_of(dtype)) return dtype;
  }
  Fields::fail(where, "is no dtype that this runtime knows");
}

TensorInfo tensor(const json::Value& value, const std::string& where) {
  Fields fields(value, where);
  TensorInfo info;
  info.name = fields.text("name");
  info.dtype = dtype_of(fields.text("dtype"), fields.path("dtype"));
  std::int64_t elements = 1;
  fields.each("shape", [&](const json::Value& dim, const std::string& at) {
    if (dim.string() != nullptr) {
      require(*dim.string() == "N" && info.shape.empty(), at, "is no size");
      info.shape.push_back(-1);
      return;
    }
    info.shape.push_back(integer_of(dim, at, 1, max_elements));
    require(info.shape.back() <= max_elements / elements, at, "makes the tensor too large");
    elements *= info.shape.back();
  });
  info.range = fields.text("range");
  info.meaning = fields.text("meaning");
  fields.done();
  require(!info.name.empty(), where, "has no name");
  require(!info.shape.empty(), where, "has no batch dimension");
  return info;
}

std::vector<TensorInfo> tensors(Fields& fields, std::string_view name) {
  std::vector<TensorInfo> found;
  std::set<std::string> names;
  fields.each(name, [&](const json::Value& value, const std::string& at) {
    found.push_back(tensor(value, at));
    require(names.insert(found.back().name).second, at, "has the name of another");
  });
  return found;
}

std::pair<std::int64_t, std::int64_t> size(Fields& fields, std::string_view name) {
  std::vector<std::int64_t> sides;
  fields.each(name, [&](const json::Value& value, const std::string& at) {
    sides.push_back(integer_of(value, at, 1, max_side));
  });
  require(sides.size() == 2, fields.path(name), "is no height and width");
  return {sides[0], sides[1]};
}

void check_preprocess(Fields& outer) {
  Fields fields(outer.any("preprocess"), "preprocess");
  const auto triple = [&](std::string_view name, double least) {
    std::size_t count = 0;
    fields.each(name, [&](const json::Value& value, const std::string& at) {
      number_of(value, at, least, highest);
      ++count;
    });
    require(count == 3, fields.path(name), "is not one number a channel");
  };
  triple("mean", lowest);
  triple("std", tiniest);
  if (fields.has("bgr")) fields.boolean("bgr");
  fields.done();
}

void check_limits(Fields& outer) {
  if (!outer.has("limits")) return;
  Fields fields(outer.any("limits"), "limits");
  for (const std::string_view name : {"detections", "candidates"}) {
    if (!fields.is_null(name)) fields.integer(name, 1);
  }
  for (const std::string_view name : {"score_threshold", "iou_threshold"}) {
    if (!fields.is_null(name)) fields.number(name, 0, 1);
  }
  fields.done();
}

void check_tolerances(Fields& outer) {
  Fields fields(outer.any("tolerances"), "tolerances");
  for (const std::string_view name : {"logits_atol", "logits_rtol", "score_rtol", "heatmap_rtol"}) {
    fields.number(name, 0);
  }
  for (const std::string_view name : {"logits_outliers", "mask_iou"}) fields.number(name, 0, 1);
  for (const std::string_view name : {"boxes_atol", "scores_atol"}) {
    if (!fields.is_null(name)) fields.number(name, 0);
  }
  for (const std::string_view name : {"predictions", "auc", "quality"}) {
    if (fields.has(name) && !fields.is_null(name)) fields.number(name, 0, 1);
  }
  fields.done();
}

EngineInfo engine(const json::Value& value, const std::string& where) {
  Fields fields(value, where);
  EngineInfo info;
  info.file = fields.text("file");
  info.flavour = fields.text("flavour");
  info.version = fields.text("version");
  fields.each("capabilities", text_of);
  for (const std::string_view name : {"activation_bytes", "weight_bytes"}) {
    if (!fields.any(name).is_null()) fields.integer(name, 0);
  }
  fields.boolean("tf32");
  for (const std::string_view name : {"convolutions", "compiled"}) {
    if (!fields.has(name)) continue;
    fields.each_member(name, [](const json::Member& member, const std::string& at) {
      integer_of(member.value, at, 0, max_elements);
    });
  }
  if (fields.any("batch").array() != nullptr) {
    std::size_t count = 0;
    fields.each("batch", [&](const json::Value& batch, const std::string& at) {
      integer_of(batch, at, 1, max_batch);
      ++count;
    });
    require(count == 3, fields.path("batch"), "is not smallest, tuned and largest");
  } else {
    fields.integer("batch", 1, max_batch);
  }
  fields.done();
  return info;
}

// What zmask_export/artifacts/manifest.py calls a plain name: no path, not hidden.
bool is_plain(const std::string& name) {
  const auto alphanumeric = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  };
  return !name.empty() && alphanumeric(name.front()) &&
         std::all_of(name.begin(), name.end(), [&](char c) {
           return alphanumeric(c) || c == '.' || c == '_' || c == '-';
         });
}

std::map<std::string, FileInfo> files(Fields& outer) {
  std::map<std::string, FileInfo> found;
  outer.each_member("files", [&](const json::Member& member, const std::string& at) {
    require(is_plain(member.name), at, "is no plain file name");
    Fields fields(member.value, at);
    FileInfo& file = found[member.name];
    file.sha256 = fields.hash("sha256");
    file.bytes = static_cast<std::uint64_t>(fields.integer("bytes", 0));
    fields.done();
  });
  return found;
}

// Whether a checksum is that of the text with 64 zeros in its place.
bool explains(const std::string& checksum, std::string_view text) {
  const std::string before = "\"checksum\": \"";
  const std::size_t at = text.find(before + checksum + "\"");
  if (at == std::string_view::npos) return false;
  const std::size_t start = at + before.size();
  const std::string zeros(checksum.size(), '0');
  const std::string_view rest = text.substr(start + checksum.size());
  Sha256 digest;
  digest.update(text.data(), start);
  digest.update(zeros.data(), zeros.size());
  digest.update(rest.data(), rest.size());
  return digest.hex() == checksum;
}

// What run() takes for granted when it hands out scores, flags and masks.
void check_signature(const BundleInfo& info) {
  const auto sized = [](std::size_t side) { return static_cast<std::int64_t>(side); };
  const std::int64_t batch = info.batch.value_or(-1);
  const std::int64_t h = sized(info.height);
  const std::int64_t w = sized(info.width);
  const auto check = [&](const std::vector<TensorInfo>& tensors, const std::string& where,
                         std::string_view name, DataType dtype,
                         const std::vector<std::int64_t>& shape) {
    const auto at = std::find_if(tensors.begin(), tensors.end(),
                                 [&](const TensorInfo& t) { return t.name == name; });
    require(at != tensors.end(), where, "lacks " + std::string(name));
    require(at->dtype == dtype && at->shape == shape, where,
            "describes " + std::string(name) + " wrongly");
  };
  require(info.inputs.size() == 2, "inputs", "is not image and threshold");
  check(info.inputs, "inputs", "image", DataType::float32, {batch, 3, h, w});
  check(info.inputs, "inputs", "threshold", DataType::float32, {1});
  check(info.outputs, "outputs", "mask", DataType::float32, {batch, 1, h, w});
  check(info.outputs, "outputs", "score", DataType::float32, {batch});
  check(info.outputs, "outputs", "flag", DataType::boolean, {batch});
  for (const TensorInfo& output : info.outputs) {
    require(output.shape.front() == batch, "outputs", "has one without the batch");
  }
}

Manifest read(const json::Value& document) {
  Fields fields(document, "");
  // First: the fields below are those of this version.
  const std::int64_t version = fields.integer("schema_version", 0);
  require(version == schema_version, "schema_version",
          "is " + std::to_string(version) + ", not " + std::to_string(schema_version));
  Manifest manifest;
  BundleInfo& info = manifest.info;
  info.tool_version = fields.text("tool_version");
  info.name = fields.text("name");
  info.model = fields.text("model");
  info.policy = fields.one_of("policy", {"detect", "mask", "gated"});
  info.precision = fields.one_of("precision", {"fp32", "tf32", "fp16", "bf16", "int8"});
  fields.integer("opset", 1);
  fields.each("classes", [&](const json::Value& value, const std::string& at) {
    info.classes.push_back(text_of(value, at));
  });
  check_limits(fields);
  const auto [height, width] = size(fields, "input_size");
  info.height = static_cast<std::size_t>(height);
  info.width = static_cast<std::size_t>(width);
  if (!fields.any("batch").is_null()) info.batch = fields.integer("batch", 1, max_batch);
  check_preprocess(fields);
  fields.one_of("fill", {"black", "mean"});
  info.threshold = fields.number("threshold", 0);
  info.inputs = tensors(fields, "inputs");
  info.outputs = tensors(fields, "outputs");
  fields.each("engines", [&](const json::Value& value, const std::string& at) {
    manifest.engines.push_back(engine(value, at));
  });
  check_tolerances(fields);
  fields.hash("weights_sha256");
  fields.hash("calibration_sha256");
  fields.each_member("versions", [](const json::Member& member, const std::string& at) {
    text_of(member.value, at);
  });
  manifest.files = files(fields);
  if (!fields.is_null("checksum")) manifest.checksum = fields.hash("checksum");
  fields.done();
  check_signature(info);
  for (const EngineInfo& listed : manifest.engines) {
    require(manifest.files.count(listed.file) == 1, "engines", "names a file that is not listed");
  }
  return manifest;
}

}  // namespace

Manifest parse_manifest(std::string_view text) {
  try {
    Manifest manifest = read(json::parse(text));
    if (manifest.checksum && !explains(*manifest.checksum, text)) {
      throw ManifestError("its checksum is another");
    }
    return manifest;
  } catch (const json::ParseError& error) {
    throw ManifestError(error.what());
  }
}

}  // namespace zmask
