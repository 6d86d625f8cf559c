# ONNX Runtime as the target ZMask::ONNXRuntime. Looks below ONNXRUNTIME_ROOT or onnxruntime_ROOT (variables
# or environment), then on the usual paths; ONNXRUNTIME_INCLUDE_DIR and ONNXRUNTIME_LIBRARY overrule.
include("${CMAKE_CURRENT_LIST_DIR}/zmask_locate.cmake")
include(FindPackageHandleStandardArgs)

zmask_locate(ONNXRUNTIME onnxruntime_cxx_api.h LIBRARIES onnxruntime
  ROOTS ${ONNXRUNTIME_ROOT} ${onnxruntime_ROOT} $ENV{ONNXRUNTIME_ROOT} $ENV{onnxruntime_ROOT})
find_package_handle_standard_args(ZMaskONNXRuntime
  REQUIRED_VARS ONNXRUNTIME_LIBRARY ONNXRUNTIME_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "set ONNXRUNTIME_ROOT to a folder with its include and lib")
if(ZMaskONNXRuntime_FOUND AND NOT TARGET ZMask::ONNXRuntime)
  add_library(ZMask::ONNXRuntime UNKNOWN IMPORTED)
  set_target_properties(ZMask::ONNXRuntime PROPERTIES
    IMPORTED_LOCATION "${ONNXRUNTIME_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${ONNXRUNTIME_INCLUDE_DIR}")
endif()
