#include "base/threads.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace calm {

struct ThreadPool::Shared {
  std::mutex mutex;
  std::condition_variable wake, done;
  const std::function<void(int, int)>* body = nullptr;
  int count = 0, grain = 1, busy = 0;
  uint64_t generation = 0;
  bool stop = false;
  std::atomic<int> next{0};
  std::exception_ptr error;
  std::vector<std::jthread> threads;

  void run(int worker) {
    try {
      for (;;) {
        const int begin = next.fetch_add(grain);
        if (begin >= count) return;
        for (int i = begin; i < std::min(begin + grain, count); ++i) (*body)(i, worker);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next.store(count);
    }
  }

  void work(int worker) {
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return stop || generation != seen; });
        if (stop) return;
        seen = generation;
      }
      run(worker);
      const std::lock_guard lock(mutex);
      if (--busy == 0) done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : shared_(std::make_unique<Shared>()) {
  size_ = threads > 0 ? threads : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  for (int worker = 1; worker < size_; ++worker)
    shared_->threads.emplace_back([shared = shared_.get(), worker] { shared->work(worker); });
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stop = true;
  }
  shared_->wake.notify_all();
  shared_->threads.clear();
}

void ThreadPool::parallel_for(int n, int grain, const std::function<void(int, int)>& body) {
  if (n <= 0) return;
  Shared& shared = *shared_;
  {
    const std::lock_guard lock(shared.mutex);
    shared.body = &body, shared.count = n, shared.grain = std::max(1, grain);
    shared.next.store(0);
    shared.error = nullptr;
    shared.busy = size_ - 1;
    ++shared.generation;
  }
  shared.wake.notify_all();
  shared.run(0);
  std::unique_lock lock(shared.mutex);
  shared.done.wait(lock, [&] { return shared.busy == 0; });
  if (shared.error) std::rethrow_exception(shared.error);
}

}  // namespace calm
