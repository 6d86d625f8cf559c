# TensorRT or TensorRT-RTX, with the CUDA runtime, as the target ZMask::TensorRT. Looks below TENSORRT_ROOT
# or TensorRT_ROOT (variables or environment), then on the usual paths; TENSORRT_INCLUDE_DIR and
# TENSORRT_LIBRARY overrule. ZMaskTensorRT_RTX says which of the two it is, by the library's name.
include("${CMAKE_CURRENT_LIST_DIR}/zmask_locate.cmake")
include(FindPackageHandleStandardArgs)

zmask_locate(TENSORRT NvInfer.h LIBRARIES nvinfer tensorrt_rtx
  ROOTS ${TENSORRT_ROOT} ${TensorRT_ROOT} $ENV{TENSORRT_ROOT} $ENV{TensorRT_ROOT})
find_package(CUDAToolkit QUIET)
find_package_handle_standard_args(ZMaskTensorRT
  REQUIRED_VARS TENSORRT_LIBRARY TENSORRT_INCLUDE_DIR CUDAToolkit_FOUND
  REASON_FAILURE_MESSAGE "set TENSORRT_ROOT to a folder with its include and lib")
if(ZMaskTensorRT_FOUND)
  set(ZMaskTensorRT_RTX OFF)
  if(TENSORRT_LIBRARY MATCHES "tensorrt_rtx")
    set(ZMaskTensorRT_RTX ON)
  endif()
  if(NOT TARGET ZMask::TensorRT)
    add_library(ZMask::TensorRT UNKNOWN IMPORTED)
    set_target_properties(ZMask::TensorRT PROPERTIES
      IMPORTED_LOCATION "${TENSORRT_LIBRARY}"
      INTERFACE_INCLUDE_DIRECTORIES "${TENSORRT_INCLUDE_DIR}"
      INTERFACE_LINK_LIBRARIES CUDA::cudart)
  endif()
endif()
