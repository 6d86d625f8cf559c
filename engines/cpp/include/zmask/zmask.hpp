// zmask: run a protected engine that `zmask-export build` wrote.
//
//     zmask::Engine engine("engines/icnet");
//     zmask::Result result = engine.run(zmask::ImageView{pixels, height, width});
//     if (result.flag()) use(result.mask(), result.prediction());
//
// This is the only header to include; none of the runtime beneath leaks through it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#ifndef ZMASK_API
#define ZMASK_API __attribute__((visibility("default")))
#endif

namespace zmask {

// Every failure, as one tree; the same as that of the Python package, with the same exit codes.
//
//     Error                          1
//     ├── UsageError                 2   options or names that do not exist
//     ├── InputError                 4   what was handed over is wrong
//     │   ├── ImageError                 an image
//     │   ├── BundleError                a bundle
//     │   └── ShapeError                 a tensor's shape, dtype or range
//     ├── OutputError                5   a result cannot be written
//     └── BackendError               6   a runtime failed
//         └── BackendUnavailableError    it is not in this build, or not on this machine
//
// what() is one sentence that says what happened, fix() one that says what to do about it.
class ZMASK_API Error : public std::runtime_error {
 public:
  Error(const std::string& what, const std::string& fix);
  ~Error() override;
  const char* fix() const noexcept { return fix_.what(); }
  virtual int exit_code() const noexcept;

 private:
  std::runtime_error fix_;  // not std::string: copying an exception must not throw
};

#define ZMASK_ERROR(name, base)                   \
  class ZMASK_API name : public base {            \
   public:                                        \
    using base::base;                             \
    ~name() override;                             \
    int exit_code() const noexcept override;      \
  };
ZMASK_ERROR(UsageError, Error)
ZMASK_ERROR(InputError, Error)
ZMASK_ERROR(ImageError, InputError)
ZMASK_ERROR(BundleError, InputError)
ZMASK_ERROR(ShapeError, InputError)
ZMASK_ERROR(OutputError, Error)
ZMASK_ERROR(BackendError, Error)
ZMASK_ERROR(BackendUnavailableError, BackendError)
#undef ZMASK_ERROR

// Elements that lie in memory one after the other, owned by somebody else.
template <typename T>
class Span {
 public:
  constexpr Span() noexcept = default;
  constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr T& operator[](std::size_t index) const noexcept { return data_[index]; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

enum class DataType { float32, int32, int64, boolean };

// Bytes of one element.
ZMASK_API std::size_t size_of(DataType dtype) noexcept;
// "float32", "int32", "int64" or "bool", as the manifest says it.
ZMASK_API std::string_view name_of(DataType dtype) noexcept;

// An input or output as the manifest describes it; a dimension of -1 is the batch.
struct TensorInfo {
  std::string name;
  DataType dtype = DataType::float32;
  std::vector<std::int64_t> shape;
  std::string range;
  std::string meaning;
};

// What the manifest says of a bundle.
struct BundleInfo {
  std::string name;
  std::string model;
  std::string tool_version;
  std::string policy;     // detect, mask or gated
  std::string precision;  // fp32, tf32, fp16, bf16 or int8
  std::vector<std::string> classes;
  std::size_t height = 0;  // of the engine's input
  std::size_t width = 0;
  std::optional<std::int64_t> batch;  // the graph's fixed batch; none where it takes any
  double threshold = 0;               // the calibrated lambda0
  std::vector<TensorInfo> inputs;
  std::vector<TensorInfo> outputs;
};

// Check a bundle as loading does, every file of it, and say what it is. Needs no runtime.
//
// verify_key: see Options.
// Throws BundleError: no bundle, not signed with the key, a damaged manifest, or a file that is missing,
// changed or extra; InputError: no such key; BackendUnavailableError: a key, and no OpenSSL in this build.
ZMASK_API BundleInfo check(const std::filesystem::path& bundle,
                           const std::optional<std::filesystem::path>& verify_key = {});

// One 8-bit RGB image: rows of `stride` bytes (0: 3 * width), pixels R G B.
struct ImageView {
  const std::uint8_t* data = nullptr;
  std::size_t height = 0;
  std::size_t width = 0;
  std::size_t stride = 0;
};

// One output of a run: the whole batch, row-major, owned by the Result.
class ZMASK_API Output {
 public:
  std::string_view name() const noexcept { return name_; }
  DataType dtype() const noexcept { return dtype_; }
  Span<const std::int64_t> shape() const noexcept { return {shape_.data(), shape_.size()}; }
  std::size_t size() const noexcept { return size_; }  // elements
  const void* data() const noexcept { return data_; }

  // The elements, for T = float, std::int32_t, std::int64_t or bool.
  //
  // Throws UsageError where the output has another dtype.
  template <typename T>
  Span<const T> as() const;

 private:
  friend struct Access;
  void require(DataType dtype) const;

  std::string name_;
  DataType dtype_ = DataType::float32;
  std::vector<std::int64_t> shape_;
  std::size_t size_ = 0;
  const void* data_ = nullptr;
  std::shared_ptr<const void> storage_;
};

template <>
ZMASK_API Span<const float> Output::as<float>() const;
template <>
ZMASK_API Span<const std::int32_t> Output::as<std::int32_t>() const;
template <>
ZMASK_API Span<const std::int64_t> Output::as<std::int64_t>() const;
template <>
ZMASK_API Span<const bool> Output::as<bool>() const;

// What an engine says of a batch of images. Spans live as long as the Result or a copy of it.
class ZMASK_API Result {
 public:
  std::size_t size() const noexcept { return size_; }          // images
  double threshold() const noexcept { return threshold_; }     // that scores were compared with
  const std::vector<Output>& outputs() const noexcept { return outputs_; }
  bool has(std::string_view name) const noexcept;

  // An output by name. Throws UsageError where there is none.
  const Output& output(std::string_view name) const;

  // Of one image. Each throws UsageError for an image that is not there.
  bool flag(std::size_t image = 0) const;               // whether an adversarial object was found
  float score(std::size_t image = 0) const;             // over-activation d
  Span<const float> mask(std::size_t image = 0) const;  // H * W: 1 = kept, 0 = covered

  // Class of every pixel, H * W: the first largest of the logits. Throws UsageError for a detector.
  std::vector<std::uint8_t> prediction(std::size_t image = 0) const;

 private:
  friend struct Access;
  std::size_t size_ = 0;
  double threshold_ = 0;
  std::vector<Output> outputs_;
};

enum class Backend { automatic, onnxruntime, tensorrt };
enum class Device { automatic, cpu, cuda };

struct Options {
  // automatic: TensorRT where this build has it, the bundle has an engine of its flavour and the
  // machine shows a GPU; else ONNX Runtime.
  Backend backend = Backend::automatic;
  // For ONNX Runtime. automatic: CUDA where ONNX Runtime has it and the machine shows a GPU.
  Device device = Device::automatic;
  // CPU threads of ONNX Runtime; 0 lets it choose, within the cores of this process.
  int threads = 0;
  // Public key that the bundle must be signed with, checked before anything in it is parsed: the .pub
  // file of `zmask-export keygen` (PEM). None takes signed and unsigned bundles.
  std::optional<std::filesystem::path> verify_key;
};

// Runtimes of this build: "onnxruntime", "tensorrt" or "tensorrt-rtx".
ZMASK_API std::vector<std::string_view> backends();

// A loaded bundle. run() may be called from several threads at once.
class ZMASK_API Engine {
 public:
  // Check every file of the bundle, then load the graph or engine from the very bytes that were
  // hashed.
  //
  // Throws BundleError, InputError: see check(); UsageError: options that cannot be; BackendUnavailableError:
  // the runtime is not here; BackendError: it refuses the graph.
  explicit Engine(const std::filesystem::path& bundle, const Options& options = {});
  ~Engine();
  Engine(Engine&& other) noexcept;
  Engine& operator=(Engine&& other) noexcept;

  const BundleInfo& info() const noexcept;
  std::string_view backend() const noexcept;  // such as "onnxruntime-cpu"

  // Run 8-bit RGB images, of one size or of several. One of another size than the engine's input is
  // stretched as the Python runtime does it, to the same bits.
  //
  // threshold: lambda0; the calibrated one where none is given.
  // Throws ImageError: an aspect ratio that is off by more than two; ShapeError: an empty image or
  // batch; UsageError: a threshold that is no number from 0 on; BackendError: the runtime failed.
  Result run(const ImageView& image, std::optional<double> threshold = std::nullopt) const;
  Result run(Span<const ImageView> images, std::optional<double> threshold = std::nullopt) const;

  // Run float32 images (batch, 3, H, W), RGB in [0, 1], of the engine's size.
  //
  // Throws ShapeError: another number of elements, a value outside [0, 1] or NaN; else as above.
  Result run(Span<const float> images, std::size_t batch,
             std::optional<double> threshold = std::nullopt) const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace zmask
