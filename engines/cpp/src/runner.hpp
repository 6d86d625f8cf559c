// The one contract of everything that runs a protected graph; a file for each backend.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "manifest.hpp"

namespace zmask {

// One output as a backend gives it: row-major in host memory that `storage` keeps alive.
struct Tensor {
  std::string name;
  DataType dtype = DataType::float32;
  std::vector<std::int64_t> shape;
  std::shared_ptr<const void> storage;
  const void* data = nullptr;
};

// Batches that a graph takes at once.
struct BatchRange {
  std::size_t smallest = 1;
  std::size_t largest = std::numeric_limits<std::size_t>::max();
};

class Runner {
 public:
  virtual ~Runner() = default;
  virtual std::string name() const = 0;
  virtual BatchRange batches() const = 0;

  // All outputs of the manifest, in its order. May be called from several threads at once.
  //
  // images: float32 (batch, 3, H, W), batch within batches().
  // Throws BackendError: the runtime failed.
  virtual std::vector<Tensor> run(const float* images, std::size_t batch, float threshold) const = 0;

 protected:
  Runner() = default;
  Runner(const Runner&) = default;
  Runner& operator=(const Runner&) = default;
};

// Load a graph. Throws BackendUnavailableError: CUDA was asked for and is not here; BackendError: the
// runtime refuses the graph, or it is not the one that the manifest describes.
std::unique_ptr<Runner> load_onnxruntime(const std::vector<char>& graph, const BundleInfo& info,
                                         const Options& options);
std::unique_ptr<Runner> load_tensorrt(const std::vector<char>& engine, const BundleInfo& info);

// Whether TensorRT could run here: a GPU that the CUDA runtime shows.
bool tensorrt_has_gpu() noexcept;

// What a runtime said, on one line and not too long.
std::string one_line(const char* text);

}  // namespace zmask
