# The CUDA kernels (.cu, nothing of PyTorch inside) and the files beside them that register the kernels as operators.
if(NOT VPD_TORCH_HAS_CUDA)
  message(FATAL_ERROR "VPD_CUDA=ON needs a CUDA build of PyTorch, but ${VPD_TORCH_VERSION} has none")
endif()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 75 80 86 89 90)
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

# Kept apart from vpd_core, whose compiler options are for the C++ compiler alone.
file(GLOB VPD_CUDA_KERNELS CONFIGURE_DEPENDS csrc/ops/cuda/*.cu)
add_library(vpd_cuda_kernels OBJECT ${VPD_CUDA_KERNELS})
target_include_directories(vpd_cuda_kernels PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/csrc)
set_target_properties(vpd_cuda_kernels PROPERTIES CUDA_STANDARD 20 POSITION_INDEPENDENT_CODE ON)

file(GLOB VPD_CUDA_OPS CONFIGURE_DEPENDS csrc/ops/cuda/*.cpp)
target_sources(vpd_core PRIVATE ${VPD_CUDA_OPS} $<TARGET_OBJECTS:vpd_cuda_kernels>)
target_link_libraries(vpd_core PRIVATE torch_cuda c10_cuda CUDA::cudart)
