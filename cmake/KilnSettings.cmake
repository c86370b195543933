# Language, warnings and helpers for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/archive")

find_program(KILN_CCACHE ccache)
if(KILN_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER "${KILN_CCACHE}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${KILN_CCACHE}")
endif()

# -Wrestrict: a false alarm of GCC 12 on std::string concatenation (GCC bug 105651).
add_compile_options(-Wall -Wextra -Wno-missing-field-initializers $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict> -ffunction-sections -fdata-sections)
add_link_options(-Wl,--gc-sections)
# A finding ends the program, so that a test fails; the standard library's own assertions come with it.
if(KILN_SANITIZE)
  add_compile_options(-fsanitize=${KILN_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  # Kernels, and functions of NVIDIA's libraries, do not say of what type they are.
  add_compile_options($<$<CXX_COMPILER_ID:Clang>:-fno-sanitize=function>)
  add_link_options(-fsanitize=${KILN_SANITIZE})
endif()
if(KILN_SANITIZE MATCHES "address")
  add_compile_definitions(KILN_SANITIZES_ADDRESSES)
elseif(KILN_SANITIZE MATCHES "thread")
  add_compile_definitions(KILN_SANITIZES_THREADS)
endif()
if(KILN_SANITIZE OR CMAKE_BUILD_TYPE STREQUAL "Debug")
  add_compile_definitions(_GLIBCXX_ASSERTIONS)
endif()

# kiln_add_part(name SOURCES ... [DEPENDS ...]): one folder of src/ as a static library; includes are relative to src/.
function(kiln_add_part name)
  cmake_parse_arguments(PART "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${PART_SOURCES})
  target_include_directories(${name} PUBLIC "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/include")
  target_link_libraries(${name} PUBLIC ${PART_DEPENDS})
endfunction()

# kiln_compiles_quickly(part [level]): parts that read and write graphs and text. Their time goes to allocations and maps, and what
# -O3 adds there is a quarter of the whole build's time and no speed. The level is -O2, or the one given.
function(kiln_compiles_quickly name)
  set(level -O2)
  if(ARGC GREATER 1)
    set(level "${ARGV1}")
  endif()
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:${level}>)
endfunction()

# kiln_runs_much(part): what tests spend their time in. The others are not optimised under sanitizers, which saves two thirds of
# the time to compile them.
function(kiln_runs_much name)
  if(KILN_SANITIZE)
    target_compile_options(${name} PRIVATE -O1)
  endif()
endfunction()

# kiln_small_code(source ...): sources of this folder that run seldom are compiled for size. libkiln_runtime is part of every
# program that runs engines.
function(kiln_small_code)
  if(CMAKE_BUILD_TYPE STREQUAL "Release")
    set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS -Os)
  endif()
endfunction()

# kiln_add_shared_library(target OUTPUT_NAME name [EXPORTS map] SOURCES ... DEPENDS ...): a library as users get it. It
# exports kiln_* (or what the version script says) and nothing else, carries its own C++ runtime, and finds the other
# libraries of Kiln beside itself.
function(kiln_add_shared_library target)
  cmake_parse_arguments(LIB "" "OUTPUT_NAME;EXPORTS" "SOURCES;DEPENDS" ${ARGN})
  add_library(${target} SHARED ${LIB_SOURCES})
  target_include_directories(${target} PUBLIC "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>" PRIVATE "${PROJECT_SOURCE_DIR}/src")
  target_link_libraries(${target} PRIVATE ${LIB_DEPENDS})
  set(exports "${PROJECT_SOURCE_DIR}/cmake/exports.map")
  if(LIB_EXPORTS)
    set(exports "${LIB_EXPORTS}")
  endif()
  target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL "-Wl,--version-script=${exports}" -Wl,--no-undefined)
  if(KILN_SANITIZE)  # the sanitizers' runtime comes with the executable
    get_target_property(options ${target} LINK_OPTIONS)
    list(REMOVE_ITEM options -Wl,--no-undefined)
    set_target_properties(${target} PROPERTIES LINK_OPTIONS "${options}")
  else()
    target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc)
    if(CMAKE_BUILD_TYPE STREQUAL "Release")
      target_link_options(${target} PRIVATE -s)
    endif()
  endif()
  set_target_properties(${target} PROPERTIES
    OUTPUT_NAME ${LIB_OUTPUT_NAME}
    LINK_DEPENDS "${exports}"
    INSTALL_RPATH "$ORIGIN"
    BUILD_WITH_INSTALL_RPATH ON)
endfunction()

# kiln_add_test(name [SHARDS n] SOURCES ... DEPENDS ...): one GoogleTest program, registered with ctest; a long one in n
# shards, which run at the same time, and before the others.
function(kiln_add_test name)
  cmake_parse_arguments(TEST "" "SHARDS" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${TEST_SOURCES})
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/src" "${PROJECT_SOURCE_DIR}/tests")
  target_link_libraries(${name} PRIVATE ${TEST_DEPENDS} GTest::gtest GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE KILN_TEST_DATA="${CMAKE_CURRENT_SOURCE_DIR}")
  # glibc fills what it allocates with 0xa5: whoever reads memory before it was written gets wrong numbers.
  set(environment MALLOC_PERTURB_=90)
  if(KILN_SANITIZE)
    # Of each allocation ASan keeps who asked for it. Code that recurses makes millions of different stacks of 30 callers,
    # and looking them up takes most of the time; 10 are enough to read a report.
    list(APPEND environment ASAN_OPTIONS=malloc_context_size=10 UBSAN_OPTIONS=print_stacktrace=1)
  endif()
  if(NOT TEST_SHARDS)
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES ENVIRONMENT "${environment}")
    return()
  endif()
  math(EXPR last "${TEST_SHARDS} - 1")
  foreach(shard RANGE ${last})
    add_test(NAME ${name}_${shard} COMMAND ${name})
    set_tests_properties(${name}_${shard} PROPERTIES
      COST ${TEST_SHARDS}
      ENVIRONMENT "${environment};GTEST_TOTAL_SHARDS=${TEST_SHARDS};GTEST_SHARD_INDEX=${shard}")
  endforeach()
endfunction()

# NVRTC for tests (as ctest names them), out of the Python that the tests use (scripts/requirements_tests.txt). Not with sanitizers,
# which take what it keeps for leaks: there the tests that need it are skipped.
function(kiln_give_nvrtc)
  get_filename_component(python_folder "${KILN_PYTHON}" DIRECTORY)
  file(GLOB folder "${python_folder}/../lib/python3*/site-packages/nvidia/cu13/lib")
  if(folder AND NOT KILN_SANITIZE)
    set_tests_properties(${ARGN} PROPERTIES ENVIRONMENT_MODIFICATION "KILN_CUDA_LIBRARIES=set:${folder}")
  endif()
endfunction()
