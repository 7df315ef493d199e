# Leaves out the parts of llama.cpp that Sprig never loads. llama-cpp-python's own CMakeLists.txt switches them on in the cache;
# a variable of the directory comes before that (policy CMP0126). `.ci/setup` names this file as CMAKE_PROJECT_llama_cpp_INCLUDE.
foreach(part COMMON TESTS TOOLS EXAMPLES SERVER APP)
    set(LLAMA_BUILD_${part} OFF)
endforeach()
set(LLAMA_OPENSSL OFF)
set(LLAVA_BUILD OFF)
