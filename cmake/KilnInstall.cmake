# Where things go: in the wheel everything lies inside the package (kiln/lib, kiln/bin, kiln/include); elsewhere the usual
# folders below the prefix are used.
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

foreach(library kiln_runtime_shared kiln_shared kiln_torch kiln_aoti kiln_aoti_shim)
  if(TARGET ${library})
    install(TARGETS ${library} LIBRARY DESTINATION "${lib_dir}" ARCHIVE DESTINATION "${lib_dir}")
  endif()
endforeach()
if(TARGET kiln)
  install(TARGETS kiln RUNTIME DESTINATION "${bin_dir}")
endif()
if(SKBUILD)  # Debian has no static simdjson
  get_target_property(simdjson simdjson::simdjson LOCATION)
  install(FILES "${simdjson}" DESTINATION "${lib_dir}" RENAME libsimdjson.so.14)
endif()
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/kiln" DESTINATION "${include_dir}")
