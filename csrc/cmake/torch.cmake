# vpd_torch: an interface target for the PyTorch that the chosen Python imports.
# Written out instead of find_package(Torch), which asks for a CUDA toolkit as soon as PyTorch was built with CUDA,
# even when no CUDA source is compiled here.
find_package(Python REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND ${Python_EXECUTABLE} -c
          "import torch, os; print(';'.join([os.path.dirname(torch.__file__), torch.__version__, str(int(torch._C._GLIBCXX_USE_CXX11_ABI)), str(int(torch.version.cuda is not None))]))"
  OUTPUT_VARIABLE VPD_TORCH_FACTS OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE VPD_TORCH_RESULT)
if(NOT VPD_TORCH_RESULT EQUAL 0)
  message(FATAL_ERROR "PyTorch not found by ${Python_EXECUTABLE}; install it first (pip install torch==2.13.0)")
endif()
list(GET VPD_TORCH_FACTS 0 VPD_TORCH_DIR)
list(GET VPD_TORCH_FACTS 1 VPD_TORCH_VERSION)
list(GET VPD_TORCH_FACTS 2 VPD_TORCH_CXX11_ABI)
list(GET VPD_TORCH_FACTS 3 VPD_TORCH_HAS_CUDA)
message(STATUS "vpd: PyTorch ${VPD_TORCH_VERSION} in ${VPD_TORCH_DIR}")

add_library(vpd_torch INTERFACE)
target_include_directories(
  vpd_torch SYSTEM INTERFACE ${VPD_TORCH_DIR}/include ${VPD_TORCH_DIR}/include/torch/csrc/api/include)
target_compile_definitions(vpd_torch INTERFACE _GLIBCXX_USE_CXX11_ABI=${VPD_TORCH_CXX11_ABI})
target_link_directories(vpd_torch INTERFACE ${VPD_TORCH_DIR}/lib)
target_link_libraries(vpd_torch INTERFACE torch_cpu c10)
if(VPD_TORCH_HAS_CUDA)
  target_link_libraries(vpd_torch INTERFACE -Wl,--no-as-needed torch -Wl,--as-needed)
endif()
