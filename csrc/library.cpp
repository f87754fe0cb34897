// The signatures of the ops. Each op's folder binds its kernels; fastccsa/ops/ adds fake kernels and gradients.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(fastccsa, m) {
  // The loss of row i with row i. Without logits or features, their terms are 0. `reduction`: 0 none, 1 mean, 2 sum,
  // 3 weighted mean. Returns the loss ([] or [N]), the four terms ([4] or [4, N]), and what the backward pass needs.
  // `zipped_ccsa` gets a gradient in Python; `zipped_ccsa_forward` is the same op without one.
  m.def(
      "zipped_ccsa(Tensor? logits1, Tensor? logits2, Tensor? features1, Tensor? features2, Tensor target1, "
      "Tensor? target2, Tensor? class_weight1, Tensor? class_weight2, Tensor? pair_weight, float margin, float alpha, "
      "int reduction) -> (Tensor loss, Tensor terms, Tensor saved)");
  m.def(
      "zipped_ccsa_forward(Tensor? logits1, Tensor? logits2, Tensor? features1, Tensor? features2, Tensor target1, "
      "Tensor? target2, Tensor? class_weight1, Tensor? class_weight2, Tensor? pair_weight, float margin, float alpha, "
      "int reduction) -> (Tensor loss, Tensor terms, Tensor saved)");
  // Bit k of `output_mask` asks for the gradient of the k-th of logits1, logits2, features1, features2; the others come
  // back empty.
  m.def(
      "zipped_ccsa_backward(Tensor? grad_loss, Tensor? grad_terms, Tensor saved, Tensor? logits1, Tensor? logits2, "
      "Tensor? features1, Tensor? features2, Tensor target1, Tensor? target2, Tensor? class_weight1, "
      "Tensor? class_weight2, Tensor? pair_weight, float margin, float alpha, int reduction, int output_mask) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  // The size of `saved` for N pairs is rows * N + weight_sums + sums * min(N, max_partials).
  m.def("zipped_saved_layout() -> (int rows, int weight_sums, int sums, int max_partials)");
  // The loss over all pairs: what fastccsa/ops/all_pairs_tiles.py calls around torch's own matrix product. It describes
  // them. The first is there on CUDA alone.
  m.def(
      "all_pairs_labels(Tensor target1, Tensor target2, int classes, Tensor(a!) label1, Tensor(b!) label2, "
      "Tensor(c!) doubt) -> ()");
  m.def(
      "all_pairs_classes(Tensor features, Tensor order, Tensor label, Tensor offset, Tensor(a!) mean, "
      "Tensor(b!) spread) -> ()");
  m.def(
      "all_pairs_align(Tensor mean1, Tensor mean2, Tensor spread1, Tensor spread2, Tensor offset1, Tensor offset2, "
      "Tensor? weight, Tensor(a!) alignment, Tensor(b!) coefficient1, Tensor(c!) coefficient2, Tensor(d!) centre, "
      "Tensor(e!)? doubt) -> ()");
  m.def(
      "all_pairs_centre(Tensor features, Tensor order, Tensor label, Tensor centre, Tensor(a!) rows, Tensor(b!) norms) "
      "-> ()");
  m.def(
      "all_pairs_tile(Tensor features1, Tensor features2, Tensor order1, Tensor order2, Tensor label1, Tensor label2, "
      "Tensor norm1, Tensor norm2, Tensor? weight, float margin, int begin1, int begin2, Tensor(a!) values, "
      "Tensor(b!) sums1, Tensor(c!) sums2, Tensor(d!)? gradient1, Tensor(e!)? gradient2, Tensor(f!) loss, "
      "Tensor(g!) close, Tensor(h!) partial, Tensor(i!)? doubt) -> ()");
  m.def(
      "all_pairs_finish(Tensor features, Tensor order, Tensor label, Tensor other_mean, Tensor coefficient, "
      "Tensor centre, Tensor sums, Tensor separation, float scale, Tensor? doubt, Tensor(a!) gradient) -> ()");
  m.def(
      "all_pairs_terms(Tensor alignment, Tensor separation, float scale, Tensor? doubt, Tensor(a!) loss, "
      "Tensor(b!) terms) -> ()");
  // The whole of it for few pairs, times `scale`: the loss, both terms ([2]), and the gradients where `wanted` (bit k:
  // of side k, [N, D] together or [2 N, D] apart). On the CPU features are contiguous and in the type of sums, labels and weights
  // checked; on CUDA the kernel checks what it reads.
  m.def(
      "all_pairs_direct(Tensor features1, Tensor features2, Tensor target1, Tensor target2, Tensor? weight, "
      "float margin, float scale, int wanted, bool apart) -> (Tensor loss, Tensor terms, Tensor gradient1, "
      "Tensor gradient2)");
  // The same for many pairs on the CPU, by products, for features of any type and strides.
  m.def(
      "all_pairs_panels(Tensor features1, Tensor features2, Tensor target1, Tensor target2, Tensor? weight, "
      "float margin, float scale, int wanted, bool apart) -> (Tensor loss, Tensor terms, Tensor gradient1, "
      "Tensor gradient2)");
  m.def("instruction_set() -> str");
  // An uninitialised, contiguous matrix on the CPU, of the size and dtype of `like`. Large ones of float32 or float64
  // reuse the memory of earlier ones.
  m.def("large_empty_like(Tensor like) -> Tensor");
  // Returns the limit before.
  m.def("set_cpu_cache_limit(int bytes) -> int");
  // Writes augmented images of a store of crops, uint8 [n, side, side, 3], to `images`, float32 or bfloat16
  // [B, 3, size, size] of any strides. Each image has a row of the store, a window (top, left, height, width), a symmetry
  // (bit 0: upside down, bit 1: mirrored, bit 2: then transposed) and a cutout. `fill` is in grey levels.
  m.def(
      "augment_out(Tensor(a!) images, Tensor store, Tensor rows, Tensor windows, Tensor symmetries, Tensor cutouts, "
      "float[] mean, float[] std, float[] fill) -> ()");
  // The same for one picture, uint8 [height, width, 3], on the CPU: writes its `region` (top, left, bottom, right, with
  // fractions) to `image`, [3, size, size]. Resampling reads pixels beyond the region's border.
  m.def(
      "augment_picture_out(Tensor(a!) image, Tensor picture, float[] region, int symmetry, int[] cutout, "
      "float[] mean, float[] std, float[] fill) -> ()");
}
