// Specifiers of functions that run on the host and on the device.
#pragma once

#if defined(__CUDACC__)
#define FASTCCSA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define FASTCCSA_HOST_DEVICE inline
#endif
