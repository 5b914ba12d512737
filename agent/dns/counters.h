// SPDX-License-Identifier: Apache-2.0
// What the responder has done. Written by its thread, read by any.
#pragma once

#include <atomic>
#include <cstdint>

namespace mesh::dns {

struct Counters {
  std::atomic<std::uint64_t> answered{0};         // names of our domain, from the catalog
  std::atomic<std::uint64_t> negative{0};         // of these, with no such name or no such record
  std::atomic<std::uint64_t> truncated{0};        // of these, cut to what UDP carries
  std::atomic<std::uint64_t> forwarded{0};        // sent on to the resolver that the pod had asked
  std::atomic<std::uint64_t> forward_failed{0};   // the resolver cannot be reached: SERVFAIL
  std::atomic<std::uint64_t> forward_timeout{0};  // it does not answer: neither do we
  std::atomic<std::uint64_t> malformed{0};        // no question that could be read
  std::atomic<std::uint64_t> no_resolver{0};      // nobody knows whom the pod had asked: REFUSED
  std::atomic<std::uint64_t> rate_limited{0};     // dropped: too many questions a second
  std::atomic<std::uint64_t> overflow{0};  // dropped: too many forwarded, too many connections
};

inline void count(std::atomic<std::uint64_t>& counter) {
  counter.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace mesh::dns
