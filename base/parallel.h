#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace epsim {

/// Threads to use: the machine's, or the environment's EPSIM_THREADS (1 to 256; throws InputError on anything else).
int thread_count();

/// Threads that a loop may use here: all of thread_count(), or inside a work item of another loop what that loop's own threads leave for each of them, for more would only wait for each other.
class ThreadShare {
 public:
  static int here() { return share_ > 0 ? share_ : thread_count(); }
  explicit ThreadShare(int threads) : before_(std::exchange(share_, threads)) {}
  ~ThreadShare() { share_ = before_; }
  ThreadShare(const ThreadShare&) = delete;
  ThreadShare& operator=(const ThreadShare&) = delete;

 private:
  inline static thread_local int share_ = 0;  // 0: outside of any loop
  int before_;
};

/// Calls `work(i)` for i in 0 .. count-1 on several threads. Work items must write to places of their own; then the result does not depend on the number of threads.
template <class Work>
void parallel_for(std::int64_t count, Work&& work) {
  const int available = ThreadShare::here(), threads = static_cast<int>(std::min<std::int64_t>(available, count));
  if (threads <= 1) {
    for (std::int64_t i = 0; i < count; ++i) work(i);
    return;
  }
  std::atomic<std::int64_t> next{0};
  std::exception_ptr failed;
  std::mutex failed_mutex;
  const auto loop = [&] {
    const ThreadShare share(available / threads);
    try {
      for (std::int64_t i = next++; i < count; i = next++) work(i);
    } catch (...) {
      const std::lock_guard lock(failed_mutex);
      if (!failed) failed = std::current_exception();
      next = count;
    }
  };
  std::vector<std::thread> pool;
  for (int t = 1; t < threads; ++t) pool.emplace_back(loop);
  loop();
  for (std::thread& t : pool) t.join();
  if (failed) std::rethrow_exception(failed);
}

}  // namespace epsim
