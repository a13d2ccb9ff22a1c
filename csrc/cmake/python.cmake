# _C: the pybind11 module. pybind11's headers are PyTorch's own copy, so that both agree on type casters.
find_package(Python REQUIRED COMPONENTS Interpreter Development.Module)
file(GLOB VPD_BIND_SOURCES CONFIGURE_DEPENDS csrc/bind/*.cpp)
Python_add_library(_C MODULE WITH_SOABI ${VPD_BIND_SOURCES})
target_link_libraries(_C PRIVATE vpd_core torch_python vpd_warnings)
target_precompile_headers(_C PRIVATE csrc/bind/pch.h)
set_target_properties(_C PROPERTIES CXX_VISIBILITY_PRESET hidden BUILD_RPATH_USE_ORIGIN ON)
# What it was built for, read before it is loaded (vpd/_build.py).
configure_file(csrc/cmake/build.json.in ${CMAKE_CURRENT_BINARY_DIR}/build.json @ONLY)
install(TARGETS _C LIBRARY DESTINATION vpd)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/build.json DESTINATION vpd)
