"""The compiled ops: the library that holds them, and for each op its fake kernel, gradient and autocast rule."""
