# Flags every target of ours gets. Dependencies come in as SYSTEM and are not held to them.
add_library(ttpu_flags INTERFACE)
target_compile_options(ttpu_flags INTERFACE -Wall -Wextra -Wpedantic -Wnon-virtual-dtor -Werror
                       $<$<CXX_COMPILER_ID:GNU>:-Wshadow=local>)
target_include_directories(ttpu_flags INTERFACE ${CMAKE_SOURCE_DIR})
if(TTPU_SANITIZE)
  # -O1 stands after the -O2 of the build type: a third less time to compile. With sanitizers gcc takes
  # members of std::regex for uninitialized.
  add_compile_options(-O1 -fsanitize=${TTPU_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all
                      $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  add_link_options(-fsanitize=${TTPU_SANITIZE})
endif()

# A cache of compilations and a quick linker, where the machine has them.
find_program(TTPU_CCACHE ccache)
if(TTPU_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${TTPU_CCACHE})
endif()
find_program(TTPU_MOLD mold)
if(TTPU_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# Coverage feedback for libFuzzer; tests/fuzz adds its main function.
if(TTPU_BUILD_FUZZERS)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "TTPU_BUILD_FUZZERS needs clang; configure with -DCMAKE_CXX_COMPILER=clang++")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

# ttpu_layer(NAME [DEPENDS target ...]): the static library ttpu_NAME from ttpu/NAME/**.cc.
function(ttpu_layer name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/ttpu/${name}/*.cc)
  add_library(ttpu_${name} STATIC ${sources})
  target_link_libraries(ttpu_${name} PUBLIC ${ARG_DEPENDS} PRIVATE ttpu_flags ${ARG_PRIVATE_DEPENDS})
  target_include_directories(ttpu_${name} PUBLIC ${CMAKE_SOURCE_DIR})
endfunction()

# ttpu_test(NAME DEPENDS target ...): the program ttpu_NAME_test from tests/NAME/*_test.cc; each
# case is a ctest of its own.
function(ttpu_test name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;PROPERTIES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${name}/*_test.cc)
  add_executable(ttpu_${name}_test ${sources})
  target_link_libraries(ttpu_${name}_test PRIVATE ttpu_flags ${ARG_DEPENDS} GTest::gtest GTest::gtest_main)
  target_compile_definitions(ttpu_${name}_test PRIVATE TTPU_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  gtest_discover_tests(ttpu_${name}_test TEST_PREFIX ${name}. NO_PRETTY_VALUES DISCOVERY_TIMEOUT 60
                       PROPERTIES TIMEOUT 600 ${ARG_PROPERTIES})
endfunction()
