# The GPUs that the CUDA code is compiled for.
#
# Default: machine code for Ampere (8.0, 8.6), Ada (8.9), Hopper (9.0) and Blackwell (10.0, 12.0), and PTX of the
# newest for later GPUs. TORCH_CUDA_ARCH_LIST overrides this in PyTorch's spelling: "8.0;9.0+PTX", separated by spaces
# or semicolons. Machine code for 9.0 is that of 9.0a, which all such GPUs run: only it has the instructions of
# warpgroups (wgmma).
function(fastccsa_cuda_architectures result)
  set(wanted "$ENV{TORCH_CUDA_ARCH_LIST}")
  if(NOT wanted)
    set(wanted "8.0 8.6 8.9 9.0 10.0 12.0+PTX")
  endif()
  string(REGEX REPLACE "[ ,]+" ";" wanted "${wanted}")
  set(architectures "")
  foreach(entry IN LISTS wanted)
    if(NOT entry MATCHES "^([0-9]+)\\.([0-9]+[af]?)(\\+PTX)?$")
      message(FATAL_ERROR "TORCH_CUDA_ARCH_LIST: '${entry}' is not an architecture; write for example 8.0;9.0+PTX")
    endif()
    set(number "${CMAKE_MATCH_1}${CMAKE_MATCH_2}")
    if(number STREQUAL "90")
      list(APPEND architectures "90a-real")
    else()
      list(APPEND architectures "${number}-real")
    endif()
    if(CMAKE_MATCH_3)
      list(APPEND architectures "${number}-virtual")
    endif()
  endforeach()
  set(${result} "${architectures}" PARENT_SCOPE)
endfunction()
