// The C interface: the C++ one, with every exception turned into a code and a text.
#include <new>
#include <optional>
#include <string>

#include "zmask/zmask.h"
#include "zmask/zmask.hpp"

struct zmask_engine {
  zmask::Engine engine;
  std::string backend;
};

struct zmask_result {
  zmask::Result result;
};

namespace {

thread_local std::string last_error;
thread_local std::string last_fix;

// Texts are copied where there is memory for it; a failure to say why must not throw.
std::int32_t failed(std::int32_t code, const char* what, const char* fix) noexcept {
  try {
    last_error = what;
    last_fix = fix;
  } catch (...) {
    last_error.clear();
    last_fix.clear();
  }
  return code;
}

template <typename Work>
std::int32_t guarded(Work&& work) noexcept {
  last_error.clear();
  last_fix.clear();
  try {
    work();
    return ZMASK_OK;
  } catch (const zmask::Error& error) {
    return failed(error.exit_code(), error.what(), error.fix());
  } catch (const std::bad_alloc&) {
    return failed(ZMASK_ERROR_OTHER, "Memory is exhausted.", "Give a smaller batch.");
  } catch (const std::exception& error) {
    return failed(ZMASK_ERROR_OTHER, error.what(), "Report it.");
  } catch (...) {
    return failed(ZMASK_ERROR_OTHER, "An unknown failure.", "Report it.");
  }
}

void require(bool holds, const char* what) {
  if (!holds) throw zmask::UsageError(what, "See zmask.h.");
}

zmask::Options options_of(const zmask_options* given) {
  zmask::Options options;
  if (given == nullptr) return options;
  require(given->backend >= ZMASK_BACKEND_AUTOMATIC && given->backend <= ZMASK_BACKEND_TENSORRT,
          "That backend does not exist.");
  require(given->device >= ZMASK_DEVICE_AUTOMATIC && given->device <= ZMASK_DEVICE_CUDA,
          "That device does not exist.");
  options.backend = static_cast<zmask::Backend>(given->backend);
  options.device = static_cast<zmask::Device>(given->device);
  options.threads = given->threads;
  if (given->verify_key != nullptr) options.verify_key = given->verify_key;
  return options;
}

std::optional<double> threshold_of(const double* given) {
  return given == nullptr ? std::nullopt : std::optional<double>(*given);
}

std::int32_t code_of(zmask::DataType dtype) {
  switch (dtype) {
    case zmask::DataType::int32:
      return ZMASK_INT32;
    case zmask::DataType::int64:
      return ZMASK_INT64;
    case zmask::DataType::boolean:
      return ZMASK_BOOL;
    default:
      return ZMASK_FLOAT32;
  }
}

void describe(const zmask::Output& output, zmask_output* into) {
  *into = {output.name().data(), code_of(output.dtype()), output.shape().size(),
           output.shape().data(), output.size(),          output.data()};
}

}  // namespace

const char* zmask_last_error(void) { return last_error.c_str(); }
const char* zmask_last_fix(void) { return last_fix.c_str(); }

std::int32_t zmask_check(const char* bundle) {
  return guarded([&] {
    require(bundle != nullptr, "The bundle is NULL.");
    zmask::check(bundle);
  });
}

std::int32_t zmask_check_signed(const char* bundle, const char* verify_key) {
  return guarded([&] {
    require(bundle != nullptr, "The bundle is NULL.");
    require(verify_key != nullptr, "The key is NULL.");
    zmask::check(bundle, verify_key);
  });
}

std::int32_t zmask_engine_load(const char* bundle, const zmask_options* options,
                               zmask_engine** engine) {
  return guarded([&] {
    require(engine != nullptr, "The place for the engine is NULL.");
    *engine = nullptr;
    require(bundle != nullptr, "The bundle is NULL.");
    zmask::Engine loaded(bundle, options_of(options));
    std::string backend(loaded.backend());
    *engine = new zmask_engine{std::move(loaded), std::move(backend)};
  });
}

void zmask_engine_free(zmask_engine* engine) { delete engine; }

size_t zmask_engine_height(const zmask_engine* engine) {
  return engine == nullptr ? 0 : engine->engine.info().height;
}

size_t zmask_engine_width(const zmask_engine* engine) {
  return engine == nullptr ? 0 : engine->engine.info().width;
}

double zmask_engine_threshold(const zmask_engine* engine) {
  return engine == nullptr ? 0 : engine->engine.info().threshold;
}

const char* zmask_engine_backend(const zmask_engine* engine) {
  return engine == nullptr ? "" : engine->backend.c_str();
}

std::int32_t zmask_engine_run_rgb8(const zmask_engine* engine, const std::uint8_t* pixels,
                                   size_t height, size_t width, size_t stride,
                                   const double* threshold, zmask_result** result) {
  return guarded([&] {
    require(result != nullptr, "The place for the result is NULL.");
    *result = nullptr;
    require(engine != nullptr, "The engine is NULL.");
    *result = new zmask_result{engine->engine.run(
        zmask::ImageView{pixels, height, width, stride}, threshold_of(threshold))};
  });
}

std::int32_t zmask_engine_run_float(const zmask_engine* engine, const float* images, size_t batch,
                                    const double* threshold, zmask_result** result) {
  return guarded([&] {
    require(result != nullptr, "The place for the result is NULL.");
    *result = nullptr;
    require(engine != nullptr && images != nullptr, "The engine or the images are NULL.");
    const zmask::BundleInfo& info = engine->engine.info();
    const zmask::Span<const float> all(images, batch * 3 * info.height * info.width);
    *result = new zmask_result{engine->engine.run(all, batch, threshold_of(threshold))};
  });
}

void zmask_result_free(zmask_result* result) { delete result; }

size_t zmask_result_count(const zmask_result* result) {
  return result == nullptr ? 0 : result->result.outputs().size();
}

std::int32_t zmask_result_output_at(const zmask_result* result, size_t index, zmask_output* output) {
  return guarded([&] {
    require(result != nullptr && output != nullptr, "The result or the place for it is NULL.");
    require(index < result->result.outputs().size(), "There is no output of that number.");
    describe(result->result.outputs()[index], output);
  });
}

std::int32_t zmask_result_output(const zmask_result* result, const char* name,
                                 zmask_output* output) {
  return guarded([&] {
    require(result != nullptr && name != nullptr && output != nullptr,
            "The result, the name or the place for it is NULL.");
    describe(result->result.output(name), output);
  });
}
