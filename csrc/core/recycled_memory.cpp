#include "core/recycled_memory.h"

#include "core/huge_pages.h"

#include <pthread.h>

#include <cstdlib>
#include <mutex>
#include <vector>

namespace fastccsa::recycled {
namespace {

constexpr std::size_t kPage = std::size_t(2) << 20;

struct Buffer {
  void* data;
  std::size_t capacity;
};

class Pool {
 public:
  void* take(std::size_t bytes, std::size_t* capacity) {
    const std::size_t wanted = (bytes + kPage - 1) / kPage * kPage;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (limit_ == 0) return nullptr;
      // The latest first, because its pages are most likely to be still mapped. Up to a quarter may be wasted.
      for (auto buffer = kept_.rbegin(); buffer != kept_.rend(); ++buffer) {
        if (buffer->capacity < wanted || buffer->capacity > wanted + wanted / 4) continue;
        void* data = buffer->data;
        *capacity = buffer->capacity;
        bytes_ -= buffer->capacity;
        kept_.erase(std::next(buffer).base());
        return data;
      }
    }
    void* data = std::aligned_alloc(kPage, wanted);
    if (data == nullptr && free_all()) data = std::aligned_alloc(kPage, wanted);
    if (data != nullptr) prefer_huge_pages(data, wanted);
    *capacity = wanted;
    return data;
  }

  void give_back(void* data, std::size_t capacity) {
    mark_worthless(data, capacity);
    const std::lock_guard<std::mutex> lock(mutex_);
    kept_.push_back({data, capacity});
    bytes_ += capacity;
    trim();
  }

  std::size_t set_limit(std::size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const std::size_t before = limit_;
    limit_ = bytes;
    trim();
    return before;
  }

  // A child that is forked while another thread holds the lock would wait for that thread, which it does not have.
  void before_fork() { mutex_.lock(); }
  void after_fork() { mutex_.unlock(); }

 private:
  // Frees all buffers that are kept; returns whether there were any.
  bool free_all() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool any = !kept_.empty();
    for (const Buffer& buffer : kept_) std::free(buffer.data);
    kept_.clear();
    bytes_ = 0;
    return any;
  }

  // Frees the oldest buffers until the rest is within the limit.
  void trim() {
    std::size_t count = 0;
    while (bytes_ > limit_) {
      bytes_ -= kept_[count].capacity;
      std::free(kept_[count++].data);
    }
    kept_.erase(kept_.begin(), kept_.begin() + std::ptrdiff_t(count));
  }

  std::mutex mutex_;
  std::vector<Buffer> kept_;  // in the order in which they were given back
  std::size_t bytes_ = 0;     // in kept_
  std::size_t limit_ = 0;
};

// Never destroyed, because tensors may be freed while the process exits.
Pool& pool() {
  static Pool* const the_pool = new Pool;
  return *the_pool;
}

// When the library is loaded, so that no thread can be in the middle of making the pool at a fork.
[[maybe_unused]] const int registered =
    pthread_atfork([] { pool().before_fork(); }, [] { pool().after_fork(); }, [] { pool().after_fork(); });

}  // namespace

void* take(std::size_t bytes, std::size_t* capacity) { return pool().take(bytes, capacity); }
void give_back(void* data, std::size_t capacity) { pool().give_back(data, capacity); }
std::size_t set_limit(std::size_t bytes) { return pool().set_limit(bytes); }

}  // namespace fastccsa::recycled
