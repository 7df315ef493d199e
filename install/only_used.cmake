# What Sprig never loads of llama.cpp is not compiled: 74 files are left of 178. llama-cpp-python's CMakeLists.txt forces the first
# switch on in the cache; a variable of the directory comes before that (policy CMP0126). `.ci/setup` names this file as
# CMAKE_PROJECT_llama_cpp_INCLUDE, and so does install/termux.sh with a copy of its own.
set(LLAMA_BUILD_COMMON OFF)
set(LLAVA_BUILD OFF)
# A wheel has no links: without versions in their names, each library is in it once, not three times.
set(CMAKE_PLATFORM_NO_VERSIONED_SONAME ON)
# The kernels keep their own switches; what stands around them takes an eighth less of the whole this way.
cmake_language(DEFER DIRECTORY ${CMAKE_SOURCE_DIR} CALL target_compile_options llama PRIVATE $<$<CXX_COMPILER_ID:GNU,Clang>:-O2>)
cmake_language(DEFER DIRECTORY ${CMAKE_SOURCE_DIR} CALL target_precompile_headers llama PRIVATE <algorithm> <array> <cmath> <cstring> <fstream>
  <functional> <map> <memory> <random> <regex> <set> <sstream> <string> <thread> <unordered_map> <vector>)
