# vpd_fuzz: the readers of the core beside a program that feeds them damaged files, all of it under AddressSanitizer and
# UndefinedBehaviorSanitizer, whatever the rest is built with. The readers are compiled once more for it.
file(GLOB VPD_FUZZ_SOURCES CONFIGURE_DEPENDS tests/cpp/fuzz/*.cpp csrc/io/*.cpp csrc/text/*.cpp)
list(FILTER VPD_FUZZ_SOURCES EXCLUDE REGEX "/io/state.cpp$")  # reads no file, needs the networks' parameters
add_executable(vpd_fuzz ${VPD_FUZZ_SOURCES})
target_include_directories(vpd_fuzz PRIVATE csrc)
target_link_libraries(vpd_fuzz PRIVATE vpd_torch vpd_warnings)
set(VPD_FUZZ_FLAGS -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
target_compile_options(vpd_fuzz PRIVATE ${VPD_FUZZ_FLAGS} -O1 -g1)
target_link_options(vpd_fuzz PRIVATE ${VPD_FUZZ_FLAGS})
set_target_properties(vpd_fuzz PROPERTIES BUILD_RPATH "${VPD_TORCH_DIR}/lib")

# Each target reads its corpus and damages it for some seconds.
enable_testing()
foreach(target safetensors torch-zip zip pickle json merges text)
  add_test(NAME fuzz_${target} COMMAND vpd_fuzz ${target} ${CMAKE_CURRENT_SOURCE_DIR}/tests/fuzz/corpus/${target} 5 1
                                       ${CMAKE_CURRENT_BINARY_DIR}/found)
endforeach()
