// What a user holds: checks in front of a runner, and named results behind it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <string>
#include <utility>

#include "bundle.hpp"
#include "images.hpp"
#include "runner.hpp"

namespace zmask {

// Fills what users only read.
struct Access {
  static Output output(const Tensor& tensor) {
    Output made;
    made.name_ = tensor.name;
    made.dtype_ = tensor.dtype;
    made.shape_ = tensor.shape;
    made.size_ = 1;
    for (const std::int64_t dim : tensor.shape) made.size_ *= static_cast<std::size_t>(dim);
    made.data_ = tensor.data;
    made.storage_ = tensor.storage;
    return made;
  }

  static Result result(std::size_t size, double threshold, const std::vector<Tensor>& tensors) {
    Result made;
    made.size_ = size;
    made.threshold_ = threshold;
    for (const Tensor& tensor : tensors) made.outputs_.push_back(output(tensor));
    return made;
  }
};

namespace {

std::string flavour() {
#if defined(ZMASK_TENSORRT_RTX)
  return "tensorrt-rtx";
#elif defined(ZMASK_HAS_TENSORRT)
  return "tensorrt";
#else
  return "";
#endif
}

constexpr bool has_onnxruntime =
#ifdef ZMASK_HAS_ONNXRUNTIME
    true;
#else
    false;
#endif

// The engine file for this build's TensorRT, or "".
std::string engine_file(const Manifest& manifest) {
  for (const EngineInfo& engine : manifest.engines) {
    if (engine.flavour == flavour()) return engine.file;
  }
  return "";
}

bool gpu_for_tensorrt() noexcept {
#ifdef ZMASK_HAS_TENSORRT
  return tensorrt_has_gpu();
#else
  return false;
#endif
}

// Which file of the bundle is run, by what the options ask for and this build and machine have.
std::string choose(const Manifest& manifest, const Options& options) {
  const std::string engine = engine_file(manifest);
  if (options.backend == Backend::tensorrt) {
    if (flavour().empty()) {
      throw BackendUnavailableError("This build of zmask has no TensorRT.",
                                    "Configure it with ZMASK_WITH_TENSORRT=ON, or choose another.");
    }
    if (engine.empty()) {
      throw BackendUnavailableError("The bundle has no engine for " + flavour() + ".",
                                    "Build it with --target " + flavour() + ".");
    }
    return engine;
  }
  if (options.backend == Backend::automatic && !engine.empty() && gpu_for_tensorrt()) return engine;
  if (!has_onnxruntime) {
    throw BackendUnavailableError("This build of zmask has no ONNX Runtime.",
                                  "Configure it with ZMASK_WITH_ONNXRUNTIME=ON.");
  }
  return std::string(onnx_name);
}

std::unique_ptr<Runner> load(const Bundle& bundle, const std::string& file,
                             [[maybe_unused]] const Options& options) {
  const BundleInfo& info = bundle.manifest.info;
#ifdef ZMASK_HAS_TENSORRT
  if (file != onnx_name) return load_tensorrt(bundle.bytes, info);
#endif
#ifdef ZMASK_HAS_ONNXRUNTIME
  if (file == onnx_name) return load_onnxruntime(bundle.bytes, info, options);
#endif
  throw BackendUnavailableError("Nothing here runs " + file + " of " + info.name + ".",
                                "Configure zmask with a runtime.");
}

std::size_t elements(const TensorInfo& info) {
  std::size_t count = 1;
  for (std::size_t i = 1; i < info.shape.size(); ++i) {
    count *= static_cast<std::size_t>(info.shape[i]);
  }
  return count;
}

// The outputs are what the manifest says, or nobody gets to read them.
void check_outputs(const std::vector<Tensor>& tensors, const BundleInfo& info, std::size_t batch) {
  for (std::size_t i = 0; i < info.outputs.size(); ++i) {
    const TensorInfo& wanted = info.outputs[i];
    std::vector<std::int64_t> shape = wanted.shape;
    shape.front() = static_cast<std::int64_t>(batch);
    if (tensors[i].dtype != wanted.dtype || tensors[i].shape != shape) {
      throw BackendError("The engine's output " + wanted.name + " is not what the manifest says.",
                         "Build the bundle again.");
    }
  }
}

// Several groups' outputs as those of one batch of `count` images.
std::vector<Tensor> joined(const std::vector<std::vector<Tensor>>& groups, const BundleInfo& info,
                           std::size_t count) {
  std::vector<Tensor> all = groups.front();
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].shape.front() = static_cast<std::int64_t>(count);
    if (groups.size() == 1) continue;  // the first rows of what is there
    const std::size_t row = elements(info.outputs[i]) * size_of(all[i].dtype);
    auto bytes = std::make_shared<std::vector<std::byte>>(count * row);
    std::size_t at = 0;
    for (const std::vector<Tensor>& group : groups) {
      const auto images = static_cast<std::size_t>(group[i].shape.front());
      const std::size_t taken = std::min(images * row, bytes->size() - at);
      std::memcpy(bytes->data() + at, group[i].data, taken);
      at += taken;
    }
    all[i].data = bytes->data();
    all[i].storage = std::move(bytes);
  }
  return all;
}

}  // namespace

struct Engine::Impl {
  Manifest manifest;
  std::unique_ptr<Runner> runner;
  std::string backend;

  Result run(const float* images, std::size_t batch, std::optional<double> threshold) const {
    const BundleInfo& info = manifest.info;
    const double limit = threshold.value_or(info.threshold);
    // Written so that NaN fails the comparison.
    if (!(limit >= 0)) {
      throw UsageError("A threshold of " + std::to_string(limit) + " is not possible.",
                       "Give a number of at least 0.");
    }
    const std::size_t image = 3 * info.height * info.width;
    const BatchRange range = runner->batches();
    std::vector<std::vector<Tensor>> groups;
    for (std::size_t start = 0; start < batch;) {
      const std::size_t here = std::min(batch - start, range.largest);
      const float* first = images + start * image;
      std::vector<float> filled;
      if (here < range.smallest) {  // the last image again, as often as the graph needs it
        filled.assign(first, first + here * image);
        for (std::size_t i = here; i < range.smallest; ++i) {
          filled.insert(filled.end(), first + (here - 1) * image, first + here * image);
        }
        first = filled.data();
      }
      const std::size_t given = std::max(here, range.smallest);
      groups.push_back(runner->run(first, given, static_cast<float>(limit)));
      check_outputs(groups.back(), info, given);
      start += here;
    }
    return Access::result(batch, limit, joined(groups, info, batch));
  }
};

Engine::Engine(const std::filesystem::path& bundle, const Options& options) {
  if (options.threads < 0) {
    throw UsageError("A number of threads below 0 is not possible.", "Give 0 or more.");
  }
  std::string file;
  std::exception_ptr nothing_to_run;  // said only of a bundle that is whole
  Bundle opened = open_bundle(bundle, [&](const Manifest& manifest) {
    try {
      file = choose(manifest, options);
    } catch (const BackendUnavailableError&) {
      nothing_to_run = std::current_exception();
    }
    return file;
  }, options.verify_key);
  if (nothing_to_run) std::rethrow_exception(nothing_to_run);
  if (opened.manifest.files.count(file) == 0) throw bad_bundle(bundle, "has no " + file);
  auto impl = std::make_unique<Impl>();
  impl->runner = load(opened, file, options);
  impl->backend = impl->runner->name();
  impl->manifest = std::move(opened.manifest);
  impl_ = std::move(impl);
}

Engine::~Engine() = default;
Engine::Engine(Engine&& other) noexcept = default;
Engine& Engine::operator=(Engine&& other) noexcept = default;

const BundleInfo& Engine::info() const noexcept { return impl_->manifest.info; }
std::string_view Engine::backend() const noexcept { return impl_->backend; }

Result Engine::run(const ImageView& image, std::optional<double> threshold) const {
  return run(Span<const ImageView>(&image, 1), threshold);
}

Result Engine::run(Span<const ImageView> images, std::optional<double> threshold) const {
  if (images.empty()) throw ShapeError("The batch holds no image.", "Give at least one.");
  const BundleInfo& info = impl_->manifest.info;
  const std::size_t image = 3 * info.height * info.width;
  std::vector<float> planes(images.size() * image);
  for (std::size_t i = 0; i < images.size(); ++i) {
    to_float(resize(images[i], info.height, info.width), planes.data() + i * image);
  }
  return impl_->run(planes.data(), images.size(), threshold);
}

Result Engine::run(Span<const float> images, std::size_t batch,
                   std::optional<double> threshold) const {
  const BundleInfo& info = impl_->manifest.info;
  check_planes(images, batch, info.height, info.width);
  return impl_->run(images.data(), batch, threshold);
}

BundleInfo check(const std::filesystem::path& bundle,
                 const std::optional<std::filesystem::path>& verify_key) {
  const auto nothing = [](const Manifest&) { return std::string(); };
  return open_bundle(bundle, nothing, verify_key).manifest.info;
}

std::vector<std::string_view> backends() {
  std::vector<std::string_view> there;
#ifdef ZMASK_HAS_ONNXRUNTIME
  there.emplace_back("onnxruntime");
#endif
#if defined(ZMASK_TENSORRT_RTX)
  there.emplace_back("tensorrt-rtx");
#elif defined(ZMASK_HAS_TENSORRT)
  there.emplace_back("tensorrt");
#endif
  return there;
}

}  // namespace zmask
