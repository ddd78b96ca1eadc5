# SPDX-License-Identifier: Apache-2.0
# cmake --install: headers, the static library, the package quern::quern for find_package, and quern.pc.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS quern EXPORT quernTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY formats/include/quern engine/api/include/quern DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")

set(QUERN_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/quern)
install(EXPORT quernTargets NAMESPACE quern:: DESTINATION ${QUERN_CMAKE_DIR})
configure_package_config_file(tools/package/quernConfig.cmake.in ${PROJECT_BINARY_DIR}/quernConfig.cmake
  INSTALL_DESTINATION ${QUERN_CMAKE_DIR})
# Before 1.0 a new minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/quernConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/quernConfig.cmake ${PROJECT_BINARY_DIR}/quernConfigVersion.cmake
  DESTINATION ${QUERN_CMAKE_DIR})

# Paths in quern.pc are relative to where it lies, so that an installed tree can be moved.
file(RELATIVE_PATH QUERN_PC_PREFIX /p/${CMAKE_INSTALL_LIBDIR}/pkgconfig /p)
string(REGEX REPLACE "/$" "" QUERN_PC_PREFIX ${QUERN_PC_PREFIX})
set(QUERN_PC_LIBS "")
if(QUERN_HAVE_VULKAN AND CMAKE_DL_LIBS)
  set(QUERN_PC_LIBS " -l${CMAKE_DL_LIBS}")
endif()
configure_file(tools/package/quern.pc.in ${PROJECT_BINARY_DIR}/quern.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/quern.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
