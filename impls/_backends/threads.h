// One pool of threads for each build. Idle workers sleep; the caller works too.
#pragma once
#ifndef _WIN32
#include <pthread.h>
#endif
#include <stddef.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace ulproof {

class ThreadPool {
 public:
  // The pool of this extension. It is never destroyed: its threads may outlive static objects at interpreter exit. A forked
  // child, which has no threads but its own, starts a new one.
  static ThreadPool& Instance() {
    static ThreadPool* pool = [] {
#ifndef _WIN32
      pthread_atfork(nullptr, nullptr, [] { current_ = new ThreadPool; });
#endif
      return current_ = new ThreadPool;
    }();
    (void)pool;
    return *current_;
  }

  // Calls task(i) once for every i < tasks, on at most `threads` threads, the calling one among them, and returns when
  // all are done. Which thread runs which task is not fixed, so a task's result must not depend on it. Tasks must not
  // throw, nor call Run. Two callers take turns.
  void Run(size_t threads, size_t tasks, const std::function<void(size_t)>& task) {
    const size_t helpers = tasks < threads ? tasks - (tasks > 0) : threads - 1;
    if (helpers == 0) {
      for (size_t i = 0; i < tasks; ++i) task(i);
      return;
    }
    std::lock_guard<std::mutex> turn(turn_);
    while (workers_ < helpers) {
      std::thread([this, index = workers_] { Work(index); }).detach();
      ++workers_;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = &task;
      tasks_ = tasks;
      next_.store(0, std::memory_order_relaxed);
      helpers_ = helpers;
      busy_ = helpers;
      ++generation_;
    }
    wake_.notify_all();
    Drain();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  inline static ThreadPool* current_ = nullptr;

  ThreadPool() = default;

  void Drain() {
    for (size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) (*task_)(i);
  }

  void Work(size_t index) {
    size_t seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_ != seen && index < helpers_; });
        seen = generation_;
      }
      Drain();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex turn_, mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(size_t)>* task_ = nullptr;
  std::atomic<size_t> next_{0};
  size_t tasks_ = 0, workers_ = 0, helpers_ = 0, busy_ = 0, generation_ = 0;
};

}  // namespace ulproof
