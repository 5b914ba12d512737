# SPDX-License-Identifier: Apache-2.0
# Builds BPF objects with clang and embeds them as libbpf skeletons.
#
#   mesh_bpf_skeleton(<name> SOURCES a.bpf.c b.bpf.c ...)
#
# compiles every source, links them statically with `bpftool gen object` into one object whose maps
# (declared __weak in a shared header) are merged, and gives an INTERFACE target mesh_bpf_<name> with
# the include directory of <name>.skel.h. A depfile makes every shared header a dependency, so that
# editing a header of bpf/include rebuilds both the kernel and the user side.

find_program(MESH_BPF_CLANG NAMES clang clang-14 clang-16 REQUIRED)
find_program(MESH_BPFTOOL NAMES bpftool PATHS /usr/sbin /sbin REQUIRED)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|amd64|AMD64)$")
  set(MESH_BPF_ARCH x86)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(MESH_BPF_ARCH arm64)
else()
  message(FATAL_ERROR "mesh-agent: unsupported processor ${CMAKE_SYSTEM_PROCESSOR}")
endif()

# <asm/types.h> lives in the multiarch directory on Debian; clang -target bpf does not look there.
execute_process(COMMAND ${CMAKE_C_COMPILER} -print-multiarch
  OUTPUT_VARIABLE MESH_MULTIARCH OUTPUT_STRIP_TRAILING_WHITESPACE)

function(mesh_bpf_skeleton name)
  cmake_parse_arguments(ARG "" "" "SOURCES" ${ARGN})
  set(objects)
  foreach(source IN LISTS ARG_SOURCES)
    get_filename_component(src ${source} ABSOLUTE)
    get_filename_component(base ${source} NAME_WE)
    set(obj ${CMAKE_CURRENT_BINARY_DIR}/${base}.bpf.o)
    add_custom_command(OUTPUT ${obj}
      COMMAND ${MESH_BPF_CLANG} -target bpf -mcpu=v3 -g -O2 -std=gnu11 -Wall -Wextra -Werror
              -Wno-missing-declarations -D__TARGET_ARCH_${MESH_BPF_ARCH}
              -idirafter ${CMAKE_SYSROOT}/usr/include/${MESH_MULTIARCH}
              -I${PROJECT_SOURCE_DIR}/bpf/include -I${PROJECT_SOURCE_DIR}/bpf
              -MMD -MF ${obj}.d -MT ${obj} -c ${src} -o ${obj}
      DEPENDS ${src} DEPFILE ${obj}.d VERBATIM
      COMMENT "BPF ${base}")
    list(APPEND objects ${obj})
  endforeach()
  set(linked ${CMAKE_CURRENT_BINARY_DIR}/${name}.linked.bpf.o)
  set(skel ${CMAKE_CURRENT_BINARY_DIR}/skel/${name}.skel.h)
  # Written to a temporary and renamed: a failed run must not leave an empty header that "exists".
  add_custom_command(OUTPUT ${linked} ${skel}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/skel
    COMMAND ${MESH_BPFTOOL} gen object ${linked} ${objects}
    COMMAND sh -c "'${MESH_BPFTOOL}' gen skeleton '${linked}' name ${name}_bpf > '${skel}.tmp' && mv '${skel}.tmp' '${skel}'"
    DEPENDS ${objects} VERBATIM COMMENT "BPF skeleton ${name}")
  add_custom_target(mesh_bpf_${name}_gen DEPENDS ${skel})
  add_library(mesh_bpf_${name} INTERFACE)
  add_dependencies(mesh_bpf_${name} mesh_bpf_${name}_gen)
  target_include_directories(mesh_bpf_${name} SYSTEM INTERFACE ${CMAKE_CURRENT_BINARY_DIR}/skel)
  target_link_libraries(mesh_bpf_${name} INTERFACE PkgConfig::LIBBPF)
endfunction()
