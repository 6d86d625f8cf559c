# zmask_locate(OUT header library... ROOTS dir...): a runtime's header folder and library below the roots,
# or on the usual paths. Python packages ship libraries without the plain .so name: those count too.
function(zmask_locate prefix header)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "LIBRARIES;ROOTS")
  set(roots ${arg_ROOTS})
  list(REMOVE_DUPLICATES roots)
  find_path(${prefix}_INCLUDE_DIR NAMES ${header} HINTS ${roots}
    PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session onnxruntime)
  set(versioned "")
  foreach(root IN LISTS roots)
    foreach(library IN LISTS arg_LIBRARIES)
      file(GLOB found RELATIVE "${root}" "${root}/lib${library}.so.*" "${root}/lib/lib${library}.so.*"
        "${root}/lib64/lib${library}.so.*")
      foreach(file IN LISTS found)
        get_filename_component(name "${file}" NAME)
        list(APPEND versioned "${name}")
      endforeach()
    endforeach()
  endforeach()
  find_library(${prefix}_LIBRARY NAMES ${arg_LIBRARIES} ${versioned} HINTS ${roots}
    PATH_SUFFIXES lib lib64 lib/stubs)
  mark_as_advanced(${prefix}_INCLUDE_DIR ${prefix}_LIBRARY)
endfunction()
