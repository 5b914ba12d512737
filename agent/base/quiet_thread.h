// SPDX-License-Identifier: Apache-2.0
// A thread that no signal is delivered to: those belong to the main thread.
#pragma once

#include <pthread.h>

#include <csignal>
#include <thread>
#include <utility>

namespace mesh {

// `name` has at most 15 characters (pthread_setname_np(3)).
template <typename Body>
std::thread quiet_thread(const char* name, Body&& body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  // Before it begins: the mask is inherited, and there is no moment without it.
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread made;
  try {
    made = std::thread(std::forward<Body>(body));
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  (void)pthread_setname_np(made.native_handle(), name);
  return made;
}

}  // namespace mesh
