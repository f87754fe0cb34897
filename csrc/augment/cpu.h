// Augmentation of stored crops on the CPU.
#pragma once

#include "augment/params.h"
#include "core/half.h"
#include "core/instruction_sets.h"
#include "core/parallel.h"

namespace fastccsa::augment::cpu {

// Makes the images [begin, end). Their views must have been checked. With `file`, the descriptor of a file of crops,
// the store is read from it; with -1 it is in memory. Returns whether all of it could be read.
template <typename T>
using Kernel = bool (*)(const Batch<T>& p, int file, int64_t begin, int64_t end);

// Makes one image, the first of `p`, from a picture. Of its view, only the symmetry and the cutout are used; the view
// must have been checked.
template <typename T>
using PictureKernel = void (*)(const Batch<T>& p, const Picture& picture);

// The kernels of one instruction set.
template <Isa isa, typename T>
Kernel<T> kernel();
template <Isa isa, typename T>
PictureKernel<T> picture_kernel();

// Images are independent of each other, so the number of threads does not change the result.
template <typename T>
bool augment(const Batch<T>& p, int file, ParallelFor parallel_for);

// Reads `bytes` bytes at `offset` of a file; returns false if it ends before, or cannot be read.
bool read_fully(int file, uint8_t* to, int64_t bytes, int64_t offset);

template <typename T>
void augment_picture(const Batch<T>& p, const Picture& picture);

}  // namespace fastccsa::augment::cpu
