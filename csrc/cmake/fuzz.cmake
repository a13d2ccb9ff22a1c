# The readers of the core, compiled once more under AddressSanitizer and UndefinedBehaviorSanitizer, whatever the rest
# is built with. vpd_replay reads the corpus as it is; where the compiler is Clang, vpd_fuzz feeds what libFuzzer makes
# of it.
set(VPD_FUZZ_FLAGS -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
file(GLOB VPD_FUZZ_SOURCES CONFIGURE_DEPENDS csrc/io/*.cpp csrc/text/*.cpp)
list(FILTER VPD_FUZZ_SOURCES EXCLUDE REGEX "/io/state.cpp$")  # reads no file, needs the networks' parameters
add_library(vpd_readers STATIC ${VPD_FUZZ_SOURCES} tests/cpp/fuzz/readers.cpp)
target_include_directories(vpd_readers PUBLIC csrc)
target_link_libraries(vpd_readers PUBLIC vpd_torch vpd_warnings)
target_compile_options(vpd_readers PUBLIC ${VPD_FUZZ_FLAGS} -O1 -g1)
target_link_options(vpd_readers PUBLIC ${VPD_FUZZ_FLAGS})

function(vpd_reads name source)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE vpd_readers)
  set_target_properties(${name} PROPERTIES BUILD_RPATH "${VPD_TORCH_DIR}/lib")
endfunction()

vpd_reads(vpd_replay tests/cpp/fuzz/replay.cpp)
enable_testing()
foreach(target safetensors torch-zip zip pickle json merges text)
  add_test(NAME replay_${target} COMMAND vpd_replay ${target} ${CMAKE_CURRENT_BINARY_DIR}/replay_${target}
                                         ${CMAKE_CURRENT_SOURCE_DIR}/tests/fuzz/corpus/${target})
endforeach()

if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(vpd_readers PRIVATE -fsanitize=fuzzer-no-link)
  vpd_reads(vpd_fuzz tests/cpp/fuzz/fuzzer.cpp)
  target_link_options(vpd_fuzz PRIVATE -fsanitize=fuzzer)
endif()
