# What Sprig never loads of llama.cpp is not compiled: 74 files are left of 178. llama-cpp-python's CMakeLists.txt forces the first
# switch on in the cache; a variable of the directory comes before that (policy CMP0126). `.ci/setup` names this file as
# CMAKE_PROJECT_llama_cpp_INCLUDE, and so does install/termux.sh with a copy of its own.
set(LLAMA_BUILD_COMMON OFF)
set(LLAVA_BUILD OFF)
# A wheel has no links: without versions in their names, each library is in it once, not three times.
set(CMAKE_PLATFORM_NO_VERSIONED_SONAME ON)
