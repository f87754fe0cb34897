// Tells the sanitizers when the stack changes, and which accesses are ordered.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(EMULATOR_RACE_DETECTOR)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void* address, unsigned long bytes);
#endif

namespace emulator {

// AddressSanitizer must be told before and after every change of stack.
struct Stack {
  const void* bottom = nullptr;
  size_t size = 0;
};

#if defined(__SANITIZE_ADDRESS__)
inline void before_switch(void** own, Stack to) { __sanitizer_start_switch_fiber(own, to.bottom, to.size); }
inline void after_switch(void* own, Stack* from) {
  __sanitizer_finish_switch_fiber(own, from ? &from->bottom : nullptr, from ? &from->size : nullptr);
}
inline void before_release(Stack stack) { __asan_unpoison_memory_region(stack.bottom, stack.size); }
#else
inline void before_switch(void**, Stack) {}
inline void after_switch(void*, Stack*) {}
inline void before_release(Stack) {}
#endif

// The race detector is ThreadSanitizer. It treats each fiber as a thread, and two accesses as a race unless a SyncPoint
// orders them: everything before a leave() is ordered before everything after a later enter().
#if defined(EMULATOR_RACE_DETECTOR)
inline void* new_racer() { return __tsan_create_fiber(0); }
inline void delete_racer(void* racer) { __tsan_destroy_fiber(racer); }
inline void* current_racer() { return __tsan_get_current_fiber(); }
inline void become_racer(void* racer) { __tsan_switch_to_fiber(racer, __tsan_switch_to_fiber_no_sync); }
// The emulator's code is not instrumented: this notes what it reads on behalf of the current racer.
inline void note_read(void* address, size_t bytes) { __tsan_read_range(address, bytes); }
class SyncPoint {
 public:
  void leave() { __tsan_release(this); }
  void enter() { __tsan_acquire(this); }

 private:
  char identity_ = 0;
};
#else
inline void* new_racer() { return nullptr; }
inline void delete_racer(void*) {}
inline void* current_racer() { return nullptr; }
inline void become_racer(void*) {}
inline void note_read(void*, size_t) {}
class SyncPoint {
 public:
  void leave() {}
  void enter() {}
};
#endif

// A racer that never runs code of its own.
class Proxy {
 public:
  Proxy() : racer_(new_racer()) {}
  ~Proxy() { delete_racer(racer_); }
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  // Runs `body` as this racer.
  template <typename Body>
  void act(Body body) {
    void* const self = current_racer();
    become_racer(racer_);
    body();
    become_racer(self);
  }

 private:
  void* racer_;
};

// Carries the order from one sync point to another, as a separate thread would.
class Courier {
 public:
  void carry(SyncPoint& from, SyncPoint& to) {
    proxy_.act([&] {
      from.enter();
      to.leave();
    });
  }

 private:
  Proxy proxy_;
};

}  // namespace emulator
