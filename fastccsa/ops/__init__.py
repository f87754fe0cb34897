"""The compiled ops: the library that contains them, and the fake kernel, gradient and autocast rule of each op."""
