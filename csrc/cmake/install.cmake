# What `cmake --install` and pip put where: the library, its headers, the shipped models and the files that make
# find_package(vpd) work. With the Python extension all of it lies in the package's folder, vpd/; a prefix that holds
# this folder (site-packages, which `vpd info cmake` prints) is one that find_package searches.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
if(VPD_PYTHON)
  set(VPD_TO_LIBRARY vpd)
  set(VPD_TO_HEADERS vpd/include)
  set(VPD_TO_CMAKE vpd/cmake)
  set(VPD_TO_DATA vpd)
  set(VPD_INSTALL_RPATH "$ORIGIN;$ORIGIN/../torch/lib")
  set_target_properties(_C PROPERTIES INSTALL_RPATH "${VPD_INSTALL_RPATH}")
else()
  set(VPD_TO_LIBRARY ${CMAKE_INSTALL_LIBDIR})
  set(VPD_TO_HEADERS ${CMAKE_INSTALL_INCLUDEDIR}/vpd)
  set(VPD_TO_CMAKE ${CMAKE_INSTALL_LIBDIR}/cmake/vpd)
  set(VPD_TO_DATA ${CMAKE_INSTALL_DATADIR}/vpd)
  set(VPD_INSTALL_RPATH "${VPD_TORCH_DIR}/lib")
  set(VPD_TORCH_DEFAULT "${VPD_TORCH_DIR}")
endif()

set_target_properties(vpd_core PROPERTIES EXPORT_NAME core INSTALL_RPATH "${VPD_INSTALL_RPATH}")
install(TARGETS vpd_core EXPORT vpd LIBRARY DESTINATION ${VPD_TO_LIBRARY} INCLUDES DESTINATION ${VPD_TO_HEADERS})
install(DIRECTORY csrc/ DESTINATION ${VPD_TO_HEADERS}
        FILES_MATCHING PATTERN "*.h" PATTERN bind EXCLUDE PATTERN cmake EXCLUDE)
if(NOT DEFINED SKBUILD)
  install(DIRECTORY vpd/zoo DESTINATION ${VPD_TO_DATA})
elseif(SKBUILD_STATE STREQUAL "editable")  # a wheel has the models as files of the package; here they stay in the checkout
  set(VPD_TO_DATA ${CMAKE_CURRENT_SOURCE_DIR}/vpd)
endif()

install(EXPORT vpd NAMESPACE vpd:: FILE vpd-targets.cmake DESTINATION ${VPD_TO_CMAKE})
string(REGEX MATCH "^[0-9]+\\.[0-9]+" VPD_TORCH_SERIES "${VPD_TORCH_VERSION}")
configure_package_config_file(
  csrc/cmake/vpd-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/vpd-config.cmake
  INSTALL_DESTINATION ${VPD_TO_CMAKE} PATH_VARS VPD_TO_DATA)
write_basic_package_version_file(
  ${CMAKE_CURRENT_BINARY_DIR}/vpd-config-version.cmake VERSION ${PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/vpd-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/vpd-config-version.cmake
              csrc/cmake/torch.cmake
        DESTINATION ${VPD_TO_CMAKE})
