# SPDX-License-Identifier: Apache-2.0
# Declares tests, fuzzers and the rung (ctest label) that each belongs to; tests/README.md explains the rungs.
#
#   mesh_add_test(<name> LABEL unit|bpfhost|bpfrun|bpfnative|netns|netnsnative SOURCES ... LIBS ... [TIMEOUT seconds]
#                 [TOGETHER])    TOGETHER: one test for ctest, for hundreds that take less than the start of a program
#                                in a guest; skipped when all of them are
#   mesh_add_fuzzed(<name> SOURCES ... LIBS ...)                    an object library for the LIBS of fuzzers
#   mesh_add_fuzzer(<name> SOURCES ... LIBS ... [CORPUS dir])     only with -DMESH_FUZZ=ON and clang
#
# The target mesh_tests_<label> builds all tests of a rung, mesh_fuzzers all fuzzers.

if(MESH_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()

function(mesh_collect_target group name)
  if(NOT TARGET ${group})
    add_custom_target(${group})
  endif()
  add_dependencies(${group} ${name})
endfunction()

function(mesh_add_test name)
  cmake_parse_arguments(ARG "TOGETHER" "LABEL;TIMEOUT" "SOURCES;LIBS" ${ARGN})
  if(NOT MESH_TESTS)
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
    if(ARG_LABEL MATCHES "^netns")
      set(ARG_TIMEOUT 300) # an emulated guest is slow
    endif()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE mesh_options ${ARG_LIBS} GTest::gmock GTest::gtest_main)
  # Optimising what runs once is a third of its compile time. In a guest the test's own work counts a little.
  if(ARG_LABEL STREQUAL "unit" OR MESH_SANITIZE)
    target_compile_options(${name} PRIVATE -O0)
  else()
    target_compile_options(${name} PRIVATE -O1)
  endif()
  # Fixtures of a test are named for it alone.
  set_target_properties(${name} PROPERTIES UNITY_BUILD OFF)
  mesh_collect_target(mesh_tests_${ARG_LABEL} ${name})
  if(ARG_TOGETHER)
    add_test(NAME ${ARG_LABEL}.${name} COMMAND ${name})
    set_tests_properties(${ARG_LABEL}.${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT}
      # None passed, and what is listed to the very end is skipped: not failed.
      SKIP_REGULAR_EXPRESSION "\\[  PASSED  \\] 0 tests\\.\n(\\[  SKIPPED \\][^\n]*\n)+$")
  else()
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST
      PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT}
      TEST_PREFIX "${ARG_LABEL}.")
  endif()
  if(ARG_LABEL MATCHES "^(netns|netnsnative|bpfrun|bpfnative)$")
    # Real hooks on the whole machine: never two at a time.
    set_property(GLOBAL APPEND PROPERTY MESH_ROOT_TESTS ${name})
  endif()
endfunction()

# Sources that several fuzzers share, compiled once: with coverage, which the agent's own libraries have none of.
function(mesh_add_fuzzed name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  if(NOT MESH_FUZZ)
    return()
  endif()
  add_library(${name} OBJECT ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC mesh_options ${ARG_LIBS})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
endfunction()

function(mesh_add_fuzzer name)
  cmake_parse_arguments(ARG "" "CORPUS" "SOURCES;LIBS" ${ARGN})
  if(NOT MESH_FUZZ)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE mesh_options ${ARG_LIBS})
  mesh_collect_target(mesh_fuzzers ${name})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
  # What a run finds goes to the first directory: not into the tree.
  set(found ${CMAKE_CURRENT_BINARY_DIR}/${name}-corpus)
  file(MAKE_DIRECTORY ${found})
  # Quiet but for what it finds: its progress would push that out of a record that is cut.
  add_test(NAME fuzz.${name} COMMAND ${name} -max_total_time=20 -timeout=5 -rss_limit_mb=1024 -verbosity=0
    ${found} ${ARG_CORPUS})
  set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT 120)
endfunction()
