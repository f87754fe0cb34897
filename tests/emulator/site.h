// The place of a call in a kernel, for error messages.
#pragma once

namespace emulator {

struct Site {
  const char* call;
  const char* file;
  int line;
};

// A kernel's last arguments, from which a function that it calls makes a Site.
#define EMULATOR_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

}  // namespace emulator
