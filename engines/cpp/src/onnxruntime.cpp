// ONNX Runtime: the backend that runs everywhere.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <utility>

// Without this the header asks the library for its functions before main(), unchecked.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include "runner.hpp"
#include "threads.hpp"

namespace zmask {
namespace {

// Number of NVIDIA GPUs that the driver shows: asking ONNX Runtime for CUDA without one prints errors.
int gpu_count() noexcept {
  const std::unique_ptr<void, int (*)(void*)> driver(::dlopen("libcuda.so.1", RTLD_NOW), &::dlclose);
  if (!driver) return 0;
  const auto init = reinterpret_cast<int (*)(unsigned)>(::dlsym(driver.get(), "cuInit"));
  const auto count =
      reinterpret_cast<int (*)(int*)>(::dlsym(driver.get(), "cuDeviceGetCount"));
  int found = 0;
  if (init == nullptr || count == nullptr || init(0) != 0 || count(&found) != 0) return 0;
  return found;
}

// The process's one environment. Throws BackendUnavailableError: the library is older than the headers.
Ort::Env& environment() {
  static const bool ready = [] {
    Ort::InitApi();
    return OrtGetApiBase()->GetApi(ORT_API_VERSION) != nullptr;
  }();
  if (!ready) {
    throw BackendUnavailableError(
        std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString() +
            " is older than the 1." + std::to_string(ORT_API_VERSION) + " it was compiled for.",
        "Put a newer libonnxruntime first on the library path.");
  }
  static Ort::Env env(ORT_LOGGING_LEVEL_FATAL, "zmask");
  // What is sent before this, only the environment variable ORT_DISABLE_TELEMETRY stops.
  static const bool quiet = (env.DisableTelemetryEvents(), true);
  static_cast<void>(quiet);
  return env;
}

// float32 without TF32: the parity contract is for float32.
void append_cuda(Ort::SessionOptions& options) {
  const OrtApi& api = Ort::GetApi();
  OrtCUDAProviderOptionsV2* cuda = nullptr;
  Ort::ThrowOnError(api.CreateCUDAProviderOptions(&cuda));
  const std::unique_ptr<OrtCUDAProviderOptionsV2, void (*)(OrtCUDAProviderOptionsV2*)> held(
      cuda, api.ReleaseCUDAProviderOptions);
  const char* key = "use_tf32";
  const char* value = "0";
  Ort::ThrowOnError(api.UpdateCUDAProviderOptions(cuda, &key, &value, 1));
  Ort::ThrowOnError(api.SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda));
}

bool use_cuda(Device device) {
  if (device == Device::cpu) return false;
  const std::vector<std::string> there = Ort::GetAvailableProviders();
  const bool provider =
      std::find(there.begin(), there.end(), "CUDAExecutionProvider") != there.end();
  const bool usable = provider && gpu_count() > 0;
  if (device == Device::cuda && !usable) {
    throw BackendUnavailableError(provider ? "This machine shows no NVIDIA GPU."
                                           : "This ONNX Runtime is built without CUDA.",
                                  "Choose Device::automatic or Device::cpu.");
  }
  return usable;
}

DataType dtype_of(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return DataType::float32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return DataType::int32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return DataType::int64;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      return DataType::boolean;
    default:
      throw BackendError("An output of the graph has a dtype that the manifest cannot describe.",
                         "Build the bundle again.");
  }
}

class OnnxRuntimeRunner final : public Runner {
 public:
  OnnxRuntimeRunner(const std::vector<char>& graph, const BundleInfo& info, const Options& options)
      : cuda_(false) {
    for (const TensorInfo& output : info.outputs) names_.push_back(output.name);
    if (info.batch) {
      batches_.smallest = batches_.largest = static_cast<std::size_t>(*info.batch);
    }
    shape_ = {0, 3, static_cast<std::int64_t>(info.height), static_cast<std::int64_t>(info.width)};
    Ort::Env& env = environment();
    try {
      Ort::SessionOptions settings;
      settings.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
      settings.SetIntraOpNumThreads(cpu_threads(options.threads));
      // Its int8 kernels saturate on processors without VNNI; engines do not.
      settings.AddConfigEntry("session.disable_quant_qdq", "1");
      cuda_ = use_cuda(options.device);
      if (info.precision == "bf16" && !cuda_) {
        throw BackendUnavailableError("ONNX Runtime has no bfloat16 convolutions on a CPU.",
                                      "Run the bundle's engine on a GPU, or take one of fp32 or fp16.");
      }
      if (cuda_) append_cuda(settings);
      session_ = Ort::Session(env, graph.data(), graph.size(), settings);
    } catch (const Ort::Exception& error) {
      throw BackendError("ONNX Runtime cannot load the graph (" + one_line(error.what()) + ").",
                         "Use a newer ONNX Runtime, or build the bundle again for this one.");
    }
  }

  std::string name() const override { return cuda_ ? "onnxruntime-cuda" : "onnxruntime-cpu"; }
  BatchRange batches() const override { return batches_; }

  std::vector<Tensor> run(const float* images, std::size_t batch, float threshold) const override {
    static constexpr std::array<const char*, 2> inputs{"image", "threshold"};
    std::array<std::int64_t, 4> shape = shape_;
    shape[0] = static_cast<std::int64_t>(batch);
    const std::size_t elements =
        batch * 3 * static_cast<std::size_t>(shape_[2]) * static_cast<std::size_t>(shape_[3]);
    const std::int64_t one = 1;
    std::vector<const char*> outputs;
    for (const std::string& name : names_) outputs.push_back(name.c_str());
    try {
      const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
      // ONNX Runtime takes inputs as not const, and only reads them.
      std::array<Ort::Value, 2> values{
          Ort::Value::CreateTensor<float>(memory, const_cast<float*>(images), elements,
                                          shape.data(), shape.size()),
          Ort::Value::CreateTensor<float>(memory, &threshold, 1, &one, 1)};
      return tensors(session_.Run(Ort::RunOptions{nullptr}, inputs.data(), values.data(),
                                  values.size(), outputs.data(), outputs.size()));
    } catch (const Ort::Exception& error) {
      throw BackendError("ONNX Runtime failed (" + one_line(error.what()) + ").",
                         "Give a smaller batch or more memory.");
    }
  }

 private:
  std::vector<Tensor> tensors(std::vector<Ort::Value> values) const {
    std::vector<Tensor> found;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto held = std::make_shared<const Ort::Value>(std::move(values[i]));
      const auto type = held->GetTensorTypeAndShapeInfo();
      found.push_back({names_[i], dtype_of(type.GetElementType()), type.GetShape(), held,
                       held->GetTensorRawData()});
    }
    return found;
  }

  std::vector<std::string> names_;
  BatchRange batches_;
  std::array<std::int64_t, 4> shape_{};
  bool cuda_;
  mutable Ort::Session session_{nullptr};  // Run() is safe from several threads, but not const
};

}  // namespace

std::unique_ptr<Runner> load_onnxruntime(const std::vector<char>& graph, const BundleInfo& info,
                                         const Options& options) {
  return std::make_unique<OnnxRuntimeRunner>(graph, info, options);
}

}  // namespace zmask
