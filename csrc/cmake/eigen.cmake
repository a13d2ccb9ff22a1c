# Eigen's headers: what `pip install cmeel-eigen` puts beside the chosen Python's packages, or the system's.
find_package(Python QUIET COMPONENTS Interpreter)
execute_process(
  COMMAND ${Python_EXECUTABLE} -c "import sys; print(';'.join(path + '/cmeel.prefix' for path in sys.path if path))"
  OUTPUT_VARIABLE VPD_PYTHON_PREFIXES OUTPUT_STRIP_TRAILING_WHITESPACE)
find_package(Eigen3 QUIET NO_MODULE HINTS ${VPD_PYTHON_PREFIXES})
if(NOT Eigen3_FOUND)
  message(FATAL_ERROR "Eigen not found; install it first (pip install cmeel-eigen, or Debian's libeigen3-dev)")
endif()
get_target_property(VPD_EIGEN_DIR Eigen3::Eigen INTERFACE_INCLUDE_DIRECTORIES)
message(STATUS "vpd: Eigen ${Eigen3_VERSION} in ${VPD_EIGEN_DIR}")
# For the one file that includes them: all others do without.
set_source_files_properties(csrc/ops/kmeans.cpp PROPERTIES COMPILE_OPTIONS -isystem${VPD_EIGEN_DIR})
