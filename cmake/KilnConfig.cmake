# find_package(Kiln) gives
#   Kiln::runtime    kiln.h, kiln.hpp and libkiln_runtime: loads and runs engines
#   Kiln::compiler   the same and libkiln: compiles models too
include("${CMAKE_CURRENT_LIST_DIR}/KilnTargets.cmake")

# kiln.hpp is C++20; kiln.h is C99, and needs nothing of C++.
get_property(kiln_languages GLOBAL PROPERTY ENABLED_LANGUAGES)
if("CXX" IN_LIST kiln_languages)
  set_property(TARGET Kiln::runtime APPEND PROPERTY INTERFACE_COMPILE_FEATURES cxx_std_20)
endif()
unset(kiln_languages)

foreach(kiln_component IN LISTS Kiln_FIND_COMPONENTS)
  if(NOT TARGET Kiln::${kiln_component})
    set(Kiln_FOUND FALSE)
    set(Kiln_NOT_FOUND_MESSAGE "got component '${kiln_component}', expected 'runtime' or 'compiler'")
  endif()
endforeach()
unset(kiln_component)
