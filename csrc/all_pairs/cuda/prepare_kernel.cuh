// The grids of the kernels that prepare the loss over all pairs: see launch.cuh.
#pragma once

#include "all_pairs/cuda/prepare_means.cuh"
#include "all_pairs/cuda/prepare_sort.cuh"

namespace fastccsa::all_pairs::cuda {

template <typename Acc, typename Launch>
void launch_kernels(const Inputs<Acc>& p, FaultWord* fault, Launch launch) {
  launch(&inputs_kernel<Acc>, dim3(unsigned(p.blocks())), p, fault);
}

template <typename Acc, typename Launch>
void launch_kernels(const CountingSort<Acc>& p, FaultWord* fault, Launch launch) {
  if (p.count[0] == nullptr) return launch(&sort_few_kernel<Acc>, dim3(unsigned(p.blocks())), p, fault);
  launch(&count_rows_kernel<Acc>, dim3(unsigned(p.blocks())), p, fault);
  launch(&add_counts_kernel<Acc>, dim3(unsigned(ceil_divide(2 * p.classes, kWarps))), p);
  launch(&place_rows_kernel<Acc>, dim3(unsigned(p.chunks(0) + p.chunks(1))), p);
}

template <typename Launch>
void launch_kernels(const Numbers& p, FaultWord*, Launch launch) {
  launch(&numbers_kernel<Numbers>, dim3(unsigned(ceil_divide(p.rows[0] + p.rows[1], kThreads))), p);
}

template <typename Launch>
void launch_kernels(const Offsets& p, FaultWord*, Launch launch) {
  launch(&offsets_kernel<Offsets>, dim3(unsigned(ceil_divide(2 * (p.classes + 1), kThreads))), p);
}

template <typename T, typename Launch>
void launch_kernels(const ClassSums<T>& p, FaultWord*, Launch launch) {
  bool packed = p.width % Pack<T>::kSize == 0;
  for (const Side<T>& side : p.side) {
    packed = packed && aligned(side.features.data, side.features.row_stride, side.features.column_stride);
  }
  const unsigned chunks = unsigned(p.chunks(0) + p.chunks(1));
  const dim3 blocks(unsigned(ceil_divide(chunks, kWarps)), unsigned(ceil_divide(p.width, kWarpColumns<T>)));
  launch(packed ? &class_sums_kernel<T, true> : &class_sums_kernel<T, false>, blocks, p);
  launch(&class_parts_kernel<T>, dim3(chunks, unsigned(column_parts(p.width))), p);
}

template <typename T, typename Launch>
void launch_kernels(const AlignClasses<T>& p, FaultWord*, Launch launch) {
  const int64_t of_centre = p.total == nullptr ? 0 : column_parts(p.width);
  launch(&alignment_kernel<T>, dim3(unsigned(1 + ceil_divide(p.classes, kWarps) + of_centre)), p);
}

}  // namespace fastccsa::all_pairs::cuda
