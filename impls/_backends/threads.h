// One pool of threads for each build. The caller works too. Idle workers sleep, but not before they have looked out for more
// work for as long as waking them up would take: on a virtual machine that is longer than a whole softmax of 65,536 elements.
#pragma once
#ifndef _WIN32
#include <pthread.h>
#endif
#include <hwy/cache_control.h>
#include <stddef.h>

#include <atomic>
#include <chrono>
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
    bool asleep;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = &task;
      tasks_ = tasks;
      next_.store(0, std::memory_order_relaxed);
      wanted_ = helpers;
      generation_.fetch_add(1, std::memory_order_release);
      asleep = asleep_ > 0;
    }
    if (asleep) wake_.notify_all();
    Drain();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      wanted_ = 0;  // all tasks have been taken: who has not begun need not be waited for
    }
    Watch([this] { return busy_.load(std::memory_order_acquire) == 0; });
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_.load(std::memory_order_relaxed) == 0; });
  }

 private:
  inline static ThreadPool* current_ = nullptr;

  ThreadPool() = default;

  void Drain() {
    for (size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < tasks_;) (*task_)(i);
  }

  // Until ready() or for some 50 microseconds. Yields: where there are fewer cores than threads, the others need this one.
  template <class Ready>
  static void Watch(const Ready& ready) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
    do {
      for (int i = 0; i < 32; ++i) {
        if (ready()) return;
        hwy::Pause();
      }
      std::this_thread::yield();
    } while (std::chrono::steady_clock::now() < until);
  }

  void Work(size_t index) {
    size_t seen = 0;
    const auto called = [&] { return generation_.load(std::memory_order_acquire) != seen; };
    for (;;) {
      Watch(called);
      {
        std::unique_lock<std::mutex> lock(mutex_);
        ++asleep_;
        wake_.wait(lock, called);
        --asleep_;
        seen = generation_.load(std::memory_order_relaxed);
        if (index >= wanted_) continue;
        busy_.fetch_add(1, std::memory_order_relaxed);
      }
      Drain();
      std::lock_guard<std::mutex> lock(mutex_);
      if (busy_.fetch_sub(1, std::memory_order_release) == 1) done_.notify_one();
    }
  }

  std::mutex turn_, mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(size_t)>* task_ = nullptr;
  std::atomic<size_t> next_{0}, generation_{0}, busy_{0};  // busy_: workers that have begun
  size_t tasks_ = 0, workers_ = 0, wanted_ = 0, asleep_ = 0;
};

}  // namespace ulproof
