// SPDX-License-Identifier: Apache-2.0
// How the control side of the relay asks its workers, within bounds.
#pragma once

#include <future>
#include <memory>
#include <type_traits>
#include <utility>

#include "agent/relay/patience.h"
#include "agent/relay/pool.h"
#include "agent/relay/worker.h"

namespace mesh::relay {

// Runs `ask` on the worker. The state is shared: an answer that comes too late finds a place to go.
template <typename Ask>
auto ask_worker(Worker& worker, Ask ask) {
  using Answer = std::invoke_result_t<Ask>;
  auto promise = std::make_shared<std::promise<Answer>>();
  auto future = promise->get_future();
  worker.post([promise, ask = std::move(ask)]() mutable { promise->set_value(ask()); });
  return future;
}

// One `patience` for many answers: its time is for all of them together.
template <typename Answer>
Result<Answer> await_answer(std::future<Answer>& future, Patience& patience) {
  while (future.wait_until(patience.until()) != std::future_status::ready)
    if (!patience.goes_on())
      return fail("relay worker did not answer within {} s", patience.waited().count());
  return future.get();
}

template <typename Answer>
Result<Answer> await_answer(std::future<Answer>& future) {
  Patience patience;
  return await_answer(future, patience);
}

}  // namespace mesh::relay
