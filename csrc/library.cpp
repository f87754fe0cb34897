// The ops' signatures. Each op's folder binds its kernels; fastccsa/ops/library.py adds fake kernels and gradients.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(fastccsa, m) {
  // Absent logits or features leave their terms out. `reduction`: 0 none, 1 mean, 2 sum, 3 weighted mean.
  // Returns the loss ([] or [N]), the four terms ([4] or [4, N]), and what the backward needs.
  // `zipped_ccsa` gets a gradient in Python; `zipped_ccsa_forward` is the same without one, for code that has its own.
  m.def(
      "zipped_ccsa(Tensor? logits1, Tensor? logits2, Tensor? features1, Tensor? features2, Tensor target1, "
      "Tensor? target2, Tensor? class_weight1, Tensor? class_weight2, Tensor? pair_weight, float margin, float alpha, "
      "int reduction) -> (Tensor loss, Tensor terms, Tensor saved)");
  m.def(
      "zipped_ccsa_forward(Tensor? logits1, Tensor? logits2, Tensor? features1, Tensor? features2, Tensor target1, "
      "Tensor? target2, Tensor? class_weight1, Tensor? class_weight2, Tensor? pair_weight, float margin, float alpha, "
      "int reduction) -> (Tensor loss, Tensor terms, Tensor saved)");
  // `wanted`: bit k asks for the gradient of the k-th of logits1, logits2, features1, features2; the others are empty.
  m.def(
      "zipped_ccsa_backward(Tensor? grad_loss, Tensor? grad_terms, Tensor saved, Tensor? logits1, Tensor? logits2, "
      "Tensor? features1, Tensor? features2, Tensor target1, Tensor? target2, Tensor? class_weight1, "
      "Tensor? class_weight2, Tensor? pair_weight, float margin, float alpha, int reduction, int wanted) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
  // Alignment + separation over every row of one side with every row of the other. Labels are in [0, labels), or not
  // bounded where `labels` is 0; `pair_weight` is [labels, labels], and bounds them too. `mean` divides by the number of
  // pairs. Gradients come along: bit k of `wanted` asks for that of side k. `apart` keeps those of the two terms apart.
  // `precision` is how CUDA multiplies float32: ieee, tf32x3 or tf32. `method`: auto chooses by the number of pairs;
  // direct computes pair by pair; products by matrix products; products_by_labels the same on CUDA, with tiles that the
  // labels decide, for which the host waits.
  // Returns the loss [], alignment and separation [2], and each side's gradient: [1, N, D], [2, N, D] if `apart`, or
  // [0, N, D] where it is not wanted.
  m.def(
      "all_pairs(Tensor features1, Tensor features2, Tensor target1, Tensor target2, Tensor? pair_weight, *, int labels, "
      "float margin, bool mean, int wanted, bool apart, str precision, str method=\"auto\") -> (Tensor loss, Tensor terms, "
      "Tensor gradient1, Tensor gradient2)");
  // The largest number of pairs for which CUDA never makes the host wait.
  m.def("all_pairs_without_host_sync() -> int");
  m.def("instruction_set() -> str");
  // An uninitialised, contiguous matrix on the CPU, of the size and dtype of `like`: where it is large, and float32 or
  // float64, in memory that an earlier one gave back.
  m.def("large_empty_like(Tensor like) -> Tensor");
  m.def("set_cpu_cache_limit(int bytes) -> int");
  // Augmented images from a store of crops, uint8 [n, side, side, 3]. `images`, float32 or bfloat16 [B, 3, size, size] of
  // any strides, is written. For each image: its row in the store, its window (top, left, height, width), its symmetry
  // (bit 0 upside down, bit 1 mirrored, bit 2 then transposed) and its cutout. `fill` is in grey levels.
  m.def(
      "augment_out(Tensor(a!) images, Tensor store, Tensor rows, Tensor windows, Tensor symmetries, Tensor cutouts, "
      "float[] mean, float[] std, float[] fill) -> ()");
  // The same of one picture, uint8 [height, width, 3], on the CPU: `region` (top, left, bottom, right), which may have
  // fractions, becomes `image`, [3, size, size]. Resampling reaches over the region's border.
  m.def(
      "augment_picture_out(Tensor(a!) image, Tensor picture, float[] region, int symmetry, int[] cutout, "
      "float[] mean, float[] std, float[] fill) -> ()");
}
