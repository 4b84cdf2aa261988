# The two sets of headers that come out of wheels, at the versions and hashes of
# ttpu/pjrt/wheels.json: ttpu_pjrt_headers (pjrt_c_api.h) and ttpu_ffi_headers (xla/ffi/api/*.h).
# They are fetched into TTPU's cache at configure time, once. A packager may point elsewhere:
set(TTPU_PJRT_INCLUDE_DIR "" CACHE PATH "Folder with pjrt_c_api.h; empty: from the pinned wheel")
set(TTPU_FFI_INCLUDE_DIR "" CACHE PATH "Folder with xla/ffi/api/ffi.h; empty: from the pinned wheel")

set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/ttpu/pjrt/wheels.json)

function(ttpu_wheel_headers target id header given)
  set(folder "${given}")
  if(NOT folder)
    # Not Python3_EXECUTABLE: that may be the environment of a wheel being built, without pip.
    find_program(TTPU_PYTHON NAMES python3 REQUIRED)
    execute_process(COMMAND ${TTPU_PYTHON} ${CMAKE_SOURCE_DIR}/tools/wheels.py headers ${id}
                    OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed)
    if(failed)
      message(FATAL_ERROR "The headers '${id}' could not be had; the reason stands above.")
    endif()
  endif()
  if(NOT EXISTS "${folder}/${header}")
    message(FATAL_ERROR "There is no ${header} in '${folder}'.")
  endif()
  add_library(${target} INTERFACE)
  target_include_directories(${target} SYSTEM INTERFACE "${folder}")
endfunction()

ttpu_wheel_headers(ttpu_pjrt_headers cpu-0.81 pjrt_c_api.h "${TTPU_PJRT_INCLUDE_DIR}")
ttpu_wheel_headers(ttpu_ffi_headers ffi-headers xla/ffi/api/ffi.h "${TTPU_FFI_INCLUDE_DIR}")
