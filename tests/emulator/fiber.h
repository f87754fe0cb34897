// A function with its own stack: it runs until it pauses, and continues from there.
#pragma once

#include "emulator/sanitizers.h"

namespace emulator {

class Fiber {
 public:
  // `entry(argument)` starts at the first resume() and must never return.
  Fiber(void (*entry)(void*), void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void resume();  // called from outside: returns when the fiber pauses
  void pause();   // called from inside: returns when the fiber is resumed

  // Orders what the fiber has done before later entries of the point. Called from outside.
  void leave(SyncPoint& point);

 private:
  // A point of execution, as saved by GCC's __builtin_setjmp. Unlike swapcontext() it makes no system call, which would
  // take thirty times as long, and unlike with setjmp() no sanitizer mistakes it for the unwinding of a stack.
  using Place = void* [5];

  static void trampoline(unsigned high, unsigned low);
  static void go(Place& to);
  static void exchange(Place& from, Place& to);
  void begin();

  void (*entry_)(void*);
  void* argument_;
  Stack stack_, outer_stack_;
  void* racer_;
  void* outer_racer_ = nullptr;
  Place place_, outer_place_;
  bool begun_ = false;
};

}  // namespace emulator
