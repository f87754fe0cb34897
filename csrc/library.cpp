// The signatures of the ops. The folder of each op binds its kernels; fastccsa/ops/ adds fake kernels and gradients.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(fastccsa, m) {
  // The loss of row i of one side with row i of the other. The terms of missing logits or features are 0. `reduction`:
  // 0 none, 1 mean, 2 sum, 3 weighted mean. Returns the loss ([] or [N]), the four terms ([4] or [4, N]), and a buffer
  // for the backward pass. `zipped_ccsa` gets a gradient in Python; `zipped_ccsa_forward` is the same op without one.
  m.def(
      "zipped_ccsa(Tensor? logits1, Tensor? logits2, Tensor? features1, Tensor? features2, Tensor target1, "
      "Tensor? target2, Tensor? class_weight1, Tensor? class_weight2, Tensor? pair_weight, float margin, float alpha, "
      "int reduction) -> (Tensor loss, Tensor terms, Tensor saved)");
  m.def(
      "zipped_ccsa_forward(Tensor? logits1, Tensor? logits2, Tensor? features1, Tensor? features2, Tensor target1, "
      "Tensor? target2, Tensor? class_weight1, Tensor? class_weight2, Tensor? pair_weight, float margin, float alpha, "
      "int reduction) -> (Tensor loss, Tensor terms, Tensor saved)");
  // Bit k of `output_mask` asks for the gradient of the k-th of logits1, logits2, features1, features2; the other
  // results are empty.
  m.def(
      "zipped_ccsa_backward(Tensor? grad_loss, Tensor? grad_terms, Tensor saved, Tensor? logits1, Tensor? logits2, "
      "Tensor? features1, Tensor? features2, Tensor target1, Tensor? target2, Tensor? class_weight1, "
      "Tensor? class_weight2, Tensor? pair_weight, float margin, float alpha, int reduction, int output_mask) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  // The same two passes on CUDA, for more than 512 pairs and a reduced loss, if gradients of the features are wanted. The
  // forward pass has their rows at hand, so it also computes these gradients, for an upstream gradient of 1. Bit k of
  // `features_mask` asks for features k + 1. `finish` computes the gradients of the logits (`output_mask` as above) and
  // replaces the gradients that were left, unless grad_loss is 1.
  m.def(
      "zipped_ccsa_forward_and_gradients(Tensor? logits1, Tensor? logits2, Tensor? features1, Tensor? features2, "
      "Tensor target1, Tensor? target2, Tensor? class_weight1, Tensor? class_weight2, Tensor? pair_weight, "
      "float margin, float alpha, int reduction, int features_mask) "
      "-> (Tensor loss, Tensor terms, Tensor saved, Tensor gradient1, Tensor gradient2)");
  m.def(
      "zipped_ccsa_finish(Tensor(a!)? gradient1, Tensor(b!)? gradient2, Tensor grad_loss, Tensor saved, "
      "Tensor? logits1, Tensor? logits2, Tensor? features1, Tensor? features2, Tensor target1, Tensor? target2, "
      "Tensor? class_weight1, Tensor? class_weight2, Tensor? pair_weight, float margin, float alpha, int reduction, "
      "int output_mask) -> (Tensor, Tensor)");
  // The size of `saved` for N pairs is rows * N + weight_sums + sums * min(N, max_partials).
  m.def("zipped_saved_layout() -> (int rows, int weight_sums, int sums, int max_partials)");
  // Alignment + separation of every row of one side with every row of the other, and its gradients. Labels must be in
  // [0, labels), or may be any numbers if `labels` is 0; `pair_weight` is [labels, labels], and bounds them too. `mean`
  // divides by the number of pairs. Bit k of `output_mask` asks for the gradient of side k. `per_term` gives each term
  // its own gradient. `precision` is how CUDA multiplies float32: ieee, bf16x3 or tf32. `method` is auto, which chooses
  // by the number of pairs; direct, which computes pair by pair; or products, which uses matrix products. Returns the
  // loss [], alignment and separation [2], and the gradient of each side: [1, N, D] of the loss, [2, N, D] of the terms,
  // or [0, N, D].
  m.def(
      "all_pairs(Tensor features1, Tensor features2, Tensor target1, Tensor target2, Tensor? pair_weight, *, "
      "int labels, float margin, bool mean, int output_mask, bool per_term, str precision, str method=\"auto\") "
      "-> (Tensor loss, Tensor terms, Tensor gradient1, Tensor gradient2)");
  m.def("instruction_set() -> str");
  // Returns an uninitialised, contiguous matrix on the CPU, of the size and dtype of `like`. Large ones of float32 or
  // float64 reuse the memory of earlier ones.
  m.def("large_empty_like(Tensor like) -> Tensor");
  // Limits the memory that is kept for reuse. Returns the previous limit.
  m.def("set_cpu_cache_limit(int bytes) -> int");
  // Writes augmented images of a store of crops, uint8 [n, side, side, 3], to `images`, float32 or bfloat16
  // [B, 3, size, size] with any strides. Each image has a row of the store, a window (top, left, height, width), a
  // symmetry (bit 0: upside down, bit 1: mirrored, bit 2: then transposed) and a cutout. `fill` is in grey levels.
  m.def(
      "augment_out(Tensor(a!) images, Tensor store, Tensor rows, Tensor windows, Tensor symmetries, Tensor cutouts, "
      "float[] mean, float[] std, float[] fill) -> ()");
  // Does the same on the CPU with crops in a file, given by its descriptor: reading a file that is cut short fails, while
  // a mapped one would end the process. Returns whether all of the crops could be read.
  m.def(
      "augment_file_out(Tensor(a!) images, int file, int crops, int side, Tensor rows, Tensor windows, "
      "Tensor symmetries, Tensor cutouts, float[] mean, float[] std, float[] fill) -> bool");
  // Does the same with one picture, uint8 [height, width, 3], on the CPU: writes its `region` (top, left, bottom,
  // right, with fractions) to `image`, [3, size, size]. Resampling reads pixels beyond the region's border.
  m.def(
      "augment_picture_out(Tensor(a!) image, Tensor picture, float[] region, int symmetry, int[] cutout, "
      "float[] mean, float[] std, float[] fill) -> ()");
}
