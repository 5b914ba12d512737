// SPDX-License-Identifier: Apache-2.0
#include "agent/dns_collector.h"

namespace mesh {

using metrics::LabelSet;
using metrics::Type;

Status DnsCollector::collect(metrics::TextWriter& out) {
  const dns::Counters& c = server_.counters();
  out.family("mesh_dns_queries_total", "Questions of workloads by what became of them.",
             Type::Counter);
  const auto result = [&](std::string_view name, const std::atomic<std::uint64_t>& count) {
    out.sample(LabelSet{{"result", name}}, count.load(std::memory_order_relaxed));
  };
  result("answered", c.answered);
  result("forwarded", c.forwarded);
  result("forward_failed", c.forward_failed);
  result("malformed", c.malformed);
  result("no_resolver", c.no_resolver);
  result("rate_limited", c.rate_limited);
  result("overflow", c.overflow);
  const auto one = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    out.family(name, help, Type::Counter);
    out.sample({}, value);
  };
  one("mesh_dns_negative_answers_total", "Of the answered, those without a record.",
      c.negative.load(std::memory_order_relaxed));
  one("mesh_dns_truncated_answers_total", "Of the answered, those cut to what UDP carries.",
      c.truncated.load(std::memory_order_relaxed));
  one("mesh_dns_forward_timeouts_total", "Forwarded questions that no resolver answered in 10 s.",
      c.forward_timeout.load(std::memory_order_relaxed));
  out.family("mesh_dns_namespaces", "Workloads whose questions are answered.", Type::Gauge);
  out.sample({}, server_.namespaces());
  return {};
}

}  // namespace mesh
