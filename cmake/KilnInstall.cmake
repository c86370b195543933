# Where things go: in the wheel everything lies inside the package (kiln/lib, kiln/bin, kiln/include); elsewhere the usual
# folders below the prefix are used.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)
if(SKBUILD)
  set(lib_dir kiln/lib)
  set(bin_dir kiln/bin)
  set(include_dir kiln/include)
  # A wheel cannot hold symbolic links: one name per library.
  set_property(TARGET kiln_runtime_shared PROPERTY SOVERSION)
else()
  set(lib_dir "${CMAKE_INSTALL_LIBDIR}")
  set(bin_dir "${CMAKE_INSTALL_BINDIR}")
  set(include_dir "${CMAKE_INSTALL_INCLUDEDIR}")
endif()
set(package_dir "${lib_dir}/cmake/Kiln")

# What other projects link: Kiln::runtime runs engines, Kiln::compiler makes them too.
set_property(TARGET kiln_runtime_shared PROPERTY EXPORT_NAME runtime)
set_property(TARGET kiln_shared PROPERTY EXPORT_NAME compiler)
target_link_libraries(kiln_shared INTERFACE kiln_runtime_shared)
install(TARGETS kiln_runtime_shared kiln_shared EXPORT KilnTargets
  LIBRARY DESTINATION "${lib_dir}"
  INCLUDES DESTINATION "${include_dir}")
install(EXPORT KilnTargets NAMESPACE Kiln:: DESTINATION "${package_dir}")

foreach(library kiln_cuda_shared kiln_torch kiln_aoti kiln_aoti_shim)
  if(TARGET ${library})
    install(TARGETS ${library} LIBRARY DESTINATION "${lib_dir}" ARCHIVE DESTINATION "${lib_dir}")
    list(APPEND optional_parts ${library})
  endif()
endforeach()
if(TARGET kiln)
  install(TARGETS kiln RUNTIME DESTINATION "${bin_dir}")
  list(APPEND optional_parts kiln)
endif()
# What users get, without the tests.
add_custom_target(product DEPENDS kiln_runtime_shared kiln_shared ${optional_parts})
if(SKBUILD)  # Debian has no static simdjson
  get_target_property(simdjson simdjson::simdjson LOCATION)
  install(FILES "${simdjson}" DESTINATION "${lib_dir}" RENAME libsimdjson.so.14)
endif()
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/kiln" DESTINATION "${include_dir}")

# find_package(Kiln), in an installed tree and in this build (lib/cmake/Kiln below either).
set(build_package_dir "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}/cmake/Kiln")
export(EXPORT KilnTargets NAMESPACE Kiln:: FILE "${build_package_dir}/KilnTargets.cmake")
configure_file("${PROJECT_SOURCE_DIR}/cmake/KilnConfig.cmake" "${build_package_dir}/KilnConfig.cmake" COPYONLY)
write_basic_package_version_file("${build_package_dir}/KilnConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${build_package_dir}/KilnConfig.cmake" "${build_package_dir}/KilnConfigVersion.cmake"
  DESTINATION "${package_dir}")

# pkg-config, relative to where its file lies.
if(NOT SKBUILD AND NOT IS_ABSOLUTE "${lib_dir}" AND NOT IS_ABSOLUTE "${include_dir}")
  file(RELATIVE_PATH prefix_from_pc "/${lib_dir}/pkgconfig" "/")
  foreach(library kiln kiln_runtime)
    configure_file("${PROJECT_SOURCE_DIR}/cmake/${library}.pc.in" "${CMAKE_BINARY_DIR}/${library}.pc" @ONLY)
    install(FILES "${CMAKE_BINARY_DIR}/${library}.pc" DESTINATION "${lib_dir}/pkgconfig")
  endforeach()
endif()
