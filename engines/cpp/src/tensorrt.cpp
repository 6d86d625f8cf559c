// TensorRT 10 and later, or TensorRT-RTX: one code path, one flavour a build.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "runner.hpp"

#if defined(TRT_MAJOR_RTX) != defined(ZMASK_TENSORRT_RTX)
#error "The headers are those of the other TensorRT: give TENSORRT_ROOT one of them alone."
#elif !defined(TRT_MAJOR_RTX) && NV_TENSORRT_MAJOR < 10
#error "zmask needs TensorRT 10 or later."
#endif

namespace zmask {
namespace {

void require(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  throw BackendError(std::string("CUDA cannot ") + what + " (" + cudaGetErrorString(code) + ").",
                     "Give a smaller batch, or free memory of the GPU.");
}

// Keeps the last error and prints nothing.
class Log final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const nvinfer1::AsciiChar* message) noexcept override {
    if (severity != Severity::kERROR && severity != Severity::kINTERNAL_ERROR) return;
    try {
      const std::lock_guard<std::mutex> lock(mutex_);
      last_ = one_line(message);
    } catch (...) {  // no memory for the reason: there is then none
    }
  }

  std::string last() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return last_.empty() ? "it gives no reason" : last_;
  }

 private:
  mutable std::mutex mutex_;
  std::string last_;
};

class Stream {
 public:
  Stream() { require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const noexcept { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Memory of the GPU that grows and never shrinks.
class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* of(std::size_t bytes) {
    if (bytes > size_) {
      cudaFree(std::exchange(data_, nullptr));
      size_ = 0;
      require(cudaMalloc(&data_, bytes), "allocate memory");
      size_ = bytes;
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

nvinfer1::DataType type_of(DataType dtype) noexcept {
  switch (dtype) {
    case DataType::int32:
      return nvinfer1::DataType::kINT32;
    case DataType::int64:
      return nvinfer1::DataType::kINT64;
    case DataType::boolean:
      return nvinfer1::DataType::kBOOL;
    default:
      return nvinfer1::DataType::kFLOAT;
  }
}

std::size_t elements(const std::vector<std::int64_t>& shape) noexcept {
  std::size_t count = 1;
  for (const std::int64_t dim : shape) count *= static_cast<std::size_t>(dim);
  return count;
}

BackendError wrong_engine(const std::string& what) {
  return BackendError("The engine " + what + ".", "Build the bundle again.");
}

class TensorRtRunner final : public Runner {
 public:
  TensorRtRunner(const std::vector<char>& data, const BundleInfo& info) : info_(info) {
    runtime_.reset(nvinfer1::createInferRuntime(log_));
    if (!runtime_) {
      throw BackendUnavailableError("TensorRT does not start (" + log_.last() + ").",
                                    "Choose Backend::onnxruntime.");
    }
    engine_.reset(runtime_->deserializeCudaEngine(data.data(), data.size()));
    if (engine_) context_.reset(engine_->createExecutionContext());
    if (!context_) {
      throw BackendError("TensorRT cannot load the engine (" + log_.last() + ").",
                         "Build the bundle for this GPU and this version, or choose "
                         "Backend::onnxruntime.");
    }
    check_signature();
    batches_ = {batch_of(nvinfer1::OptProfileSelector::kMIN),
                batch_of(nvinfer1::OptProfileSelector::kMAX)};
  }

  std::string name() const override {
#ifdef TRT_MAJOR_RTX
    return "tensorrt-rtx";
#else
    return "tensorrt";
#endif
  }

  BatchRange batches() const override { return batches_; }

  std::vector<Tensor> run(const float* images, std::size_t batch, float threshold) const override {
    // A context runs one batch at a time.
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::vector<std::int64_t> shape{static_cast<std::int64_t>(batch), 3,
                                          static_cast<std::int64_t>(info_.height),
                                          static_cast<std::int64_t>(info_.width)};
    put("image", images, shape);
    put("threshold", &threshold, {1});
    std::vector<Tensor> outputs;
    for (const TensorInfo& output : info_.outputs) outputs.push_back(place(output));
    if (!context_->enqueueV3(stream_.get())) {
      throw BackendError("TensorRT failed (" + log_.last() + ").",
                         "Give a smaller batch, or free memory of the GPU.");
    }
    for (Tensor& output : outputs) fetch(output);
    require(cudaStreamSynchronize(stream_.get()), "finish the run");
    return outputs;
  }

 private:
  // The tensors are those of the manifest, and no others.
  void check_signature() const {
    const auto count = info_.inputs.size() + info_.outputs.size();
    if (engine_->getNbIOTensors() != static_cast<std::int32_t>(count)) {
      throw wrong_engine("has other inputs and outputs than the manifest says");
    }
    const auto check = [&](const TensorInfo& info, nvinfer1::TensorIOMode mode) {
      const char* name = info.name.c_str();
      if (engine_->getTensorIOMode(name) != mode) throw wrong_engine("has no tensor " + info.name);
      if (engine_->getTensorDataType(name) != type_of(info.dtype)) {
        throw wrong_engine("has another dtype for " + info.name + " than the manifest says");
      }
    };
    for (const TensorInfo& info : info_.inputs) check(info, nvinfer1::TensorIOMode::kINPUT);
    for (const TensorInfo& info : info_.outputs) check(info, nvinfer1::TensorIOMode::kOUTPUT);
  }

  std::size_t batch_of(nvinfer1::OptProfileSelector which) const {
    const nvinfer1::Dims whole = engine_->getTensorShape("image");
    if (whole.nbDims == 4 && whole.d[0] > 0) return static_cast<std::size_t>(whole.d[0]);
    const nvinfer1::Dims shape = engine_->getProfileShape("image", 0, which);
    if (shape.nbDims != 4 || shape.d[0] < 1) throw wrong_engine("takes no batch of images");
    return static_cast<std::size_t>(shape.d[0]);
  }

  void put(const char* name, const float* data, const std::vector<std::int64_t>& shape) const {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), dims.d);
    const std::size_t bytes = elements(shape) * sizeof(float);
    void* device = buffers_[name].of(bytes);
    if (!context_->setInputShape(name, dims) || !context_->setTensorAddress(name, device)) {
      throw BackendError(std::string("TensorRT refuses the input ") + name + " (" + log_.last() +
                             ").",
                         "Give a batch that the engine was built for.");
    }
    require(cudaMemcpyAsync(device, data, bytes, cudaMemcpyHostToDevice, stream_.get()),
            "copy an input");
  }

  // Tell the context where an output goes. All inputs have their shapes by now.
  Tensor place(const TensorInfo& info) const {
    const nvinfer1::Dims dims = context_->getTensorShape(info.name.c_str());
    Tensor tensor{info.name, info.dtype, {}, nullptr, nullptr};
    for (std::int32_t i = 0; i < dims.nbDims; ++i) {
      if (dims.d[i] < 0) throw wrong_engine("leaves the shape of " + info.name + " open");
      tensor.shape.push_back(dims.d[i]);
    }
    const std::size_t bytes = elements(tensor.shape) * size_of(info.dtype);
    if (!context_->setTensorAddress(info.name.c_str(), buffers_[info.name].of(bytes))) {
      throw wrong_engine("takes no memory for " + info.name);
    }
    return tensor;
  }

  void fetch(Tensor& tensor) const {
    const std::size_t bytes = elements(tensor.shape) * size_of(tensor.dtype);
    auto host = std::make_shared<std::vector<std::byte>>(bytes);
    require(cudaMemcpyAsync(host->data(), buffers_[tensor.name].of(bytes), bytes,
                            cudaMemcpyDeviceToHost, stream_.get()),
            "copy an output");
    tensor.data = host->data();
    tensor.storage = std::move(host);
  }

  // In this order: the context goes before its engine, that before its runtime, the log last.
  mutable Log log_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  BundleInfo info_;
  BatchRange batches_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, Buffer> buffers_;
  Stream stream_;
};

}  // namespace

bool tensorrt_has_gpu() noexcept {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

std::unique_ptr<Runner> load_tensorrt(const std::vector<char>& engine, const BundleInfo& info) {
  if (!tensorrt_has_gpu()) {
    throw BackendUnavailableError("This machine shows no NVIDIA GPU.",
                                  "Choose Backend::onnxruntime.");
  }
  return std::make_unique<TensorRtRunner>(engine, info);
}

}  // namespace zmask
