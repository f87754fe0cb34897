#include "emulator/fiber.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>

// No sanitizer may instrument a function while its stack changes.
#define EMULATOR_SWITCHES_STACKS __attribute__((noinline, no_sanitize("address", "thread", "undefined")))

namespace emulator {
namespace {

constexpr size_t kStackBytes = size_t(128) << 10;

size_t page_bytes() { return size_t(sysconf(_SC_PAGESIZE)); }

// Below each stack is an inaccessible page: an overflow ends the program instead of overwriting another fiber's data.
Stack new_stack() {
  const size_t guard = page_bytes();
  void* memory = mmap(nullptr, guard + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, guard, PROT_NONE);
  return {static_cast<char*>(memory) + guard, kStackBytes};
}

void delete_stack(Stack stack) {
  before_release(stack);
  const size_t guard = page_bytes();
  munmap(static_cast<char*>(const_cast<void*>(stack.bottom)) - guard, guard + stack.size);
}

}  // namespace

Fiber::Fiber(void (*entry)(void*), void* argument)
    : entry_(entry), argument_(argument), stack_(new_stack()), racer_(new_racer()) {}

Fiber::~Fiber() {
  delete_racer(racer_);
  delete_stack(stack_);
}

void Fiber::resume() {
  void* own = nullptr;
  outer_racer_ = current_racer();
  before_switch(&own, stack_);
  become_racer(racer_);
  if (begun_) {
    exchange(outer_place_, place_);
  } else {
    begin();
  }
  after_switch(own, nullptr);
}

void Fiber::pause() {
  void* own = nullptr;
  before_switch(&own, outer_stack_);
  become_racer(outer_racer_);
  exchange(place_, outer_place_);
  after_switch(own, &outer_stack_);
}

void Fiber::leave(SyncPoint& point) {
  void* const self = current_racer();
  become_racer(racer_);
  point.leave();
  become_racer(self);
}

EMULATOR_SWITCHES_STACKS void Fiber::go(Place& to) { __builtin_longjmp(to, 1); }

EMULATOR_SWITCHES_STACKS void Fiber::exchange(Place& from, Place& to) {
  if (__builtin_setjmp(from) == 0) go(to);
}

EMULATOR_SWITCHES_STACKS void Fiber::begin() {
  begun_ = true;
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = const_cast<void*>(stack_.bottom);
  context.uc_stack.ss_size = stack_.size;
  // makecontext() passes only integers.
  const uint64_t self = reinterpret_cast<uintptr_t>(this);
  makecontext(&context, reinterpret_cast<void (*)()>(&trampoline), 2, unsigned(self >> 32), unsigned(self));
  if (__builtin_setjmp(outer_place_) == 0) setcontext(&context);
}

void Fiber::trampoline(unsigned high, unsigned low) {
  Fiber* self = reinterpret_cast<Fiber*>(uintptr_t(uint64_t(high) << 32 | low));
  after_switch(nullptr, &self->outer_stack_);
  self->entry_(self->argument_);
  std::abort();
}

}  // namespace emulator
