# vpd_threads: what compiles loops for several threads. at::parallel_for is a loop of one thread in files compiled
# without OpenMP. GCC's code for it is resolved at run time by the OpenMP library that PyTorch itself brings, so that
# both have one pool of threads and torch.set_num_threads counts for both; a second copy linked here would not.
find_package(OpenMP REQUIRED COMPONENTS CXX)
add_library(vpd_threads INTERFACE)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  separate_arguments(VPD_OPENMP_FLAGS UNIX_COMMAND "${OpenMP_CXX_FLAGS}")
  target_compile_options(vpd_threads INTERFACE ${VPD_OPENMP_FLAGS})
else()
  target_link_libraries(vpd_threads INTERFACE OpenMP::OpenMP_CXX)
endif()
