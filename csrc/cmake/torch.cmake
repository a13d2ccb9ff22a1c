# vpd_torch: an interface target for PyTorch. Found in VPD_TORCH_DIR (a folder with include/ and lib/, as the LibTorch
# archives and the Python package have), else beside an installed vpd, else where the chosen Python imports it from.
# Written out instead of find_package(Torch), which asks for a CUDA toolkit as soon as PyTorch was built with CUDA,
# even when no CUDA source is compiled here.
if(NOT VPD_TORCH_DIR AND EXISTS ${CMAKE_CURRENT_LIST_DIR}/../../torch/include/ATen/ATen.h)
  get_filename_component(VPD_TORCH_DIR ${CMAKE_CURRENT_LIST_DIR}/../../torch ABSOLUTE)
endif()
if(NOT VPD_TORCH_DIR)
  find_package(Python REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "import importlib.util; print(importlib.util.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE VPD_TORCH_DIR OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE VPD_TORCH_RESULT)
  if(NOT VPD_TORCH_RESULT EQUAL 0)
    message(FATAL_ERROR "PyTorch not found by ${Python_EXECUTABLE}; install it first (pip install torch==2.13.0), "
                        "or name its folder with -DVPD_TORCH_DIR=")
  endif()
endif()
file(STRINGS ${VPD_TORCH_DIR}/share/cmake/Torch/TorchConfigVersion.cmake VPD_TORCH_VERSION REGEX "^set\\(PACKAGE_VERSION ")
string(REGEX REPLACE ".*\"([0-9.]+).*" "\\1" VPD_TORCH_VERSION "${VPD_TORCH_VERSION}")
set(VPD_TORCH_HAS_CUDA OFF)
if(EXISTS ${VPD_TORCH_DIR}/lib/libtorch_cuda.so)
  set(VPD_TORCH_HAS_CUDA ON)
endif()
message(STATUS "vpd: PyTorch ${VPD_TORCH_VERSION} in ${VPD_TORCH_DIR}")

add_library(vpd_torch INTERFACE)
target_include_directories(
  vpd_torch SYSTEM INTERFACE ${VPD_TORCH_DIR}/include ${VPD_TORCH_DIR}/include/torch/csrc/api/include)
target_compile_definitions(vpd_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)  # as every PyTorch since 2.7
target_link_directories(vpd_torch INTERFACE ${VPD_TORCH_DIR}/lib)
target_link_libraries(vpd_torch INTERFACE torch_cpu c10)
if(VPD_TORCH_HAS_CUDA)
  target_link_libraries(vpd_torch INTERFACE -Wl,--no-as-needed torch -Wl,--as-needed)
endif()
