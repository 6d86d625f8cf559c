/* zmask: the C interface of the C++ runtime, for C and for other languages.
 *
 * Every function that can fail returns one of the codes below, which are the exit codes of the Python
 * program; zmask_last_error() and zmask_last_fix() then say what happened and what to do, until the
 * next call in the same thread. No exception crosses. Strings and arrays that a function gives belong to
 * the engine or result that they come from.
 */
#ifndef ZMASK_ZMASK_H
#define ZMASK_ZMASK_H

#include <stddef.h>
#include <stdint.h>

#ifndef ZMASK_API
#define ZMASK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
  ZMASK_OK = 0,
  ZMASK_ERROR_OTHER = 1,  /* out of memory, or what should not happen */
  ZMASK_ERROR_USAGE = 2,  /* an argument that cannot be, or a name that does not exist */
  ZMASK_ERROR_INPUT = 4,  /* the bundle, the image or its shape */
  ZMASK_ERROR_OUTPUT = 5, /* a result cannot be written */
  ZMASK_ERROR_BACKEND = 6 /* the runtime is not here, or failed */
};

enum { ZMASK_FLOAT32 = 0, ZMASK_INT32 = 1, ZMASK_INT64 = 2, ZMASK_BOOL = 3 };
enum { ZMASK_BACKEND_AUTOMATIC = 0, ZMASK_BACKEND_ONNXRUNTIME = 1, ZMASK_BACKEND_TENSORRT = 2 };
enum { ZMASK_DEVICE_AUTOMATIC = 0, ZMASK_DEVICE_CPU = 1, ZMASK_DEVICE_CUDA = 2 };

typedef struct zmask_engine zmask_engine;
typedef struct zmask_result zmask_result;

/* All zero is the default of everything. */
typedef struct zmask_options {
  int32_t backend;
  int32_t device;
  int32_t threads; /* CPU threads of ONNX Runtime; 0 lets it choose, within the cores of this process */
  /* Public key that the bundle must be signed with, the .pub file of keygen; NULL: signed or not */
  const char* verify_key;
} zmask_options;

/* One output of the whole batch, row-major. ZMASK_BOOL is one byte, 0 or 1. */
typedef struct zmask_output {
  const char* name;
  int32_t dtype;
  size_t rank;
  const int64_t* shape;
  size_t elements;
  const void* data;
} zmask_output;

/* What went wrong in this thread's last call, and what to do about it; "" after a success. */
ZMASK_API const char* zmask_last_error(void);
ZMASK_API const char* zmask_last_fix(void);

/* Check every file of a bundle without loading it. Needs no runtime. */
ZMASK_API int32_t zmask_check(const char* bundle);
/* The same, of a bundle that must be signed with verify_key: see zmask_options. */
ZMASK_API int32_t zmask_check_signed(const char* bundle, const char* verify_key);

/* Check and load a bundle. options may be NULL. *engine is NULL after a failure. */
ZMASK_API int32_t zmask_engine_load(const char* bundle, const zmask_options* options,
                                    zmask_engine** engine);
ZMASK_API void zmask_engine_free(zmask_engine* engine);
ZMASK_API size_t zmask_engine_height(const zmask_engine* engine);
ZMASK_API size_t zmask_engine_width(const zmask_engine* engine);
ZMASK_API double zmask_engine_threshold(const zmask_engine* engine);
ZMASK_API const char* zmask_engine_backend(const zmask_engine* engine);

/* Run one 8-bit RGB image: rows of `stride` bytes (0: 3 * width). Another size than the engine's is
 * stretched. threshold may be NULL: the calibrated one. *result is NULL after a failure. */
ZMASK_API int32_t zmask_engine_run_rgb8(const zmask_engine* engine, const uint8_t* pixels,
                                        size_t height, size_t width, size_t stride,
                                        const double* threshold, zmask_result** result);

/* Run float32 images (batch, 3, H, W), RGB in [0, 1], of the engine's size. */
ZMASK_API int32_t zmask_engine_run_float(const zmask_engine* engine, const float* images, size_t batch,
                                         const double* threshold, zmask_result** result);
ZMASK_API void zmask_result_free(zmask_result* result);

ZMASK_API size_t zmask_result_count(const zmask_result* result); /* outputs */
ZMASK_API int32_t zmask_result_output_at(const zmask_result* result, size_t index, zmask_output* output);
ZMASK_API int32_t zmask_result_output(const zmask_result* result, const char* name,
                                      zmask_output* output);

#ifdef __cplusplus
}
#endif

#endif
