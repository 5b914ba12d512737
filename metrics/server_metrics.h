// SPDX-License-Identifier: Apache-2.0
// What the HTTP endpoint counts about itself.
#pragma once

#include <array>
#include <atomic>
#include <string_view>

#include "metrics/counter.h"

namespace mesh::metrics {

#define MESH_REJECTIONS(X)               \
  X(ConnectionLimit, "connection_limit") \
  X(AcceptFailed, "accept_failed")       \
  X(Malformed, "malformed")              \
  X(HeaderTooLarge, "header_too_large")  \
  X(Body, "body")                        \
  X(Method, "method")                    \
  X(NotFound, "not_found")               \
  X(Deadline, "deadline")                \
  X(CollectionDeadline, "collection_deadline")

enum class Rejection : std::size_t {
#define MESH_X(id, text) id,
  MESH_REJECTIONS(MESH_X)
#undef MESH_X
};
inline constexpr std::array kRejections = {
#define MESH_X(id, text) std::string_view(text),
    MESH_REJECTIONS(MESH_X)
#undef MESH_X
};

struct ServerMetrics final : Collector {
  void count(Rejection why) { rejected[static_cast<std::size_t>(why)].add(); }

  Counter scrapes;
  std::atomic<std::uint64_t> duration_ns{0};
  std::array<Counter, kRejections.size()> rejected;

  [[nodiscard]] std::string_view name() const override { return "metrics_server"; }
  Status collect(TextWriter& out) override {
    out.family("mesh_metrics_scrapes_total", "Requests for /metrics.", Type::Counter);
    out.sample({}, scrapes.value());
    out.family("mesh_metrics_scrape_duration_seconds",
               "Time that the collection before this one took; 0 before the first.", Type::Gauge);
    out.sample({}, Nanoseconds{duration_ns.load(std::memory_order_relaxed)});
    out.family("mesh_metrics_http_rejected_total",
               "Requests and connections of the HTTP endpoint that were refused or cut off.",
               Type::Counter);
    for (std::size_t i = 0; i < kRejections.size(); ++i)
      out.sample({{"reason", kRejections[i]}}, rejected[i].value());
    return {};
  }
};

}  // namespace mesh::metrics
