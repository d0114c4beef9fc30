// A fixed pool of worker threads for data-parallel loops.
// Work is cut into the same chunks whatever the number of threads; results must not depend on who runs which chunk.
#pragma once

#include <functional>
#include <memory>

namespace calm {

class ThreadPool {
 public:
  // threads: workers including the caller, at least 1; 0 takes the machine's cores.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Calls body(i, worker) for i in [0, n), in grains of `grain` indices; worker in [0, size()) names the thread's
  // own scratch space. Returns when all are done. An exception from a body is thrown here after the rest stops.
  void parallel_for(int n, int grain, const std::function<void(int index, int worker)>& body);

 private:
  struct Shared;
  std::unique_ptr<Shared> shared_;
  int size_;
};

}  // namespace calm
