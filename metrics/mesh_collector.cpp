// SPDX-License-Identifier: Apache-2.0
#include "metrics/mesh_collector.h"

#include <algorithm>
#include <compare>
#include <map>
#include <optional>
#include <utility>

namespace mesh::metrics {
namespace {

#define MESH_X(id, text) text,
constexpr std::array<std::string_view, MESH_PATH_COUNT> kPaths{MESH_PATHS(MESH_X)};
constexpr std::array<std::string_view, MESH_FAIL_COUNT> kFailures{MESH_FAILURES(MESH_X)};
constexpr std::array<std::string_view, MESH_METHOD_COUNT> kMethods{MESH_METHODS(MESH_X)};
constexpr std::array<std::string_view, MESH_DENY_COUNT> kDenials{MESH_DENIALS(MESH_X)};
constexpr std::array<std::string_view, MESH_EVENT_COUNT> kEvents{MESH_EVENTS(MESH_X)};
#undef MESH_X
constexpr std::array<std::string_view, 2> kReporters{"source", "destination"};
constexpr std::string_view kUnknown = "unknown";

// A number outside its list can only come from a newer writer of the same map: it stays one value.
template <std::size_t N>
std::string_view text_of(const std::array<std::string_view, N>& texts, std::size_t index,
                         std::string_view otherwise) {
  return index < N ? texts[index] : otherwise;
}

// The labels of a series by name instead of by id; ordered as they are written.
struct SeriesKey {
  std::uint32_t source;  // index into SeriesNames
  std::uint32_t destination;
  std::uint8_t reporter;
  std::uint8_t path;
  auto operator<=>(const SeriesKey&) const = default;
};

// Label ids -> distinct names, sorted. Two ids with one name get one index, and so one series.
class SeriesNames {
 public:
  explicit SeriesNames(const LabelNames& names) {
    std::map<std::uint32_t, std::string> by_id;
    for (const auto& [id, name] : names)
      if (id >= MESH_LABEL_FIRST_SERVICE && !name.empty()) by_id.emplace(id, clean_utf8(name));
    by_id[MESH_LABEL_UNKNOWN] = kUnknown;
    by_id[MESH_LABEL_EXTERNAL] = "external";
    by_id[MESH_LABEL_NODE] = "node";
    by_id[MESH_LABEL_OUTSIDE] = "outside";
    for (const auto& [id, name] : by_id) sorted_.push_back(name);
    std::sort(sorted_.begin(), sorted_.end());
    sorted_.erase(std::unique(sorted_.begin(), sorted_.end()), sorted_.end());
    for (const auto& [id, name] : by_id) {
      auto at = std::lower_bound(sorted_.begin(), sorted_.end(), name);
      index_.emplace(id, static_cast<std::uint32_t>(at - sorted_.begin()));
    }
  }

  [[nodiscard]] SeriesKey key(const mesh_series& series) const {
    return {index(series.source), index(series.destination),
            std::min(series.reporter, static_cast<std::uint8_t>(kReporters.size())),
            std::min(series.path, static_cast<std::uint8_t>(kPaths.size()))};
  }

  // Rendered once for a series, however many families it is in.
  const LabelSet& labels(const SeriesKey& key) {
    auto [at, fresh] = rendered_.try_emplace(key);
    if (fresh) {
      at->second = {{"reporter", text_of(kReporters, key.reporter, kUnknown)},
                    {"source", sorted_[key.source]},
                    {"destination", sorted_[key.destination]},
                    {"path", text_of(kPaths, key.path, kUnknown)}};
    }
    return at->second;
  }

 private:
  [[nodiscard]] std::uint32_t index(std::uint32_t id) const {
    auto at = index_.find(id);
    return at != index_.end() ? at->second : index_.at(MESH_LABEL_UNKNOWN);
  }

  std::vector<std::string> sorted_;
  std::unordered_map<std::uint32_t, std::uint32_t> index_;
  std::map<SeriesKey, LabelSet> rendered_;
};

// Collects the errors of several snapshots into one message.
class Errors {
 public:
  template <typename T>
  std::optional<T> take(Result<T> result, std::string_view what) {
    if (result) return std::move(*result);
    if (!first_) {
      first_ = Error{result.error().code, {}};
    } else {
      first_->what += "; ";
    }
    first_->what += fmt::format("{}: {}", what, result.error().what);
    return std::nullopt;
  }
  [[nodiscard]] Status status() const {
    if (first_) return tl::unexpected(*first_);
    return {};
  }

 private:
  std::optional<Error> first_;
};

void write_l4(TextWriter& out, SeriesNames& names, const std::vector<L4Row>& rows) {
  std::map<SeriesKey, mesh_l4> merged;
  for (const L4Row& row : rows) {
    mesh_l4& sum = merged[names.key(row.series)];
    sum.opened += row.totals.opened;
    sum.closed += row.totals.closed;
    sum.sent_bytes += row.totals.sent_bytes;
    sum.received_bytes += row.totals.received_bytes;
  }
  auto family = [&](std::string_view name, std::string_view help, Type type, auto value) {
    out.family(name, help, type);
    for (const auto& [key, totals] : merged) out.sample(names.labels(key), value(totals));
  };
  family("mesh_connections_opened_total", "TCP connections that were established.", Type::Counter,
         [](const mesh_l4& l4) { return l4.opened; });
  family("mesh_connections_closed_total", "Established TCP connections that have ended.",
         Type::Counter, [](const mesh_l4& l4) { return l4.closed; });
  // The per-CPU parts of a map are not read at one instant: a close may be seen before its open.
  family("mesh_connections_active", "TCP connections open now.", Type::Gauge,
         [](const mesh_l4& l4) { return l4.opened > l4.closed ? l4.opened - l4.closed : 0; });
  family("mesh_sent_bytes_total",
         "Payload bytes that the reporting socket sent and its peer acknowledged.", Type::Counter,
         [](const mesh_l4& l4) { return l4.sent_bytes; });
  family("mesh_received_bytes_total", "Payload bytes that the reporting socket received.",
         Type::Counter, [](const mesh_l4& l4) { return l4.received_bytes; });
}

void write_failed(TextWriter& out, SeriesNames& names, const std::vector<FailedRow>& rows) {
  std::map<std::pair<SeriesKey, std::uint32_t>, std::uint64_t> merged;
  for (const FailedRow& row : rows) {
    auto reason = row.reason < MESH_FAIL_COUNT ? row.reason : std::uint32_t{MESH_FAIL_OTHER};
    merged[{names.key(row.series), reason}] += row.count;
  }
  out.family("mesh_connections_failed_total",
             "TCP connections that could not be established, or that an error ended.",
             Type::Counter);
  for (const auto& [key, count] : merged)
    out.sample(names.labels(key.first), {{"reason", kFailures[key.second]}}, count);
}

struct HttpKey {
  SeriesKey series;
  std::uint8_t method;
  std::uint16_t code;
  auto operator<=>(const HttpKey&) const = default;
};

void write_http(TextWriter& out, SeriesNames& names, const std::vector<HttpRow>& rows) {
  std::map<HttpKey, std::uint64_t> merged;
  for (const HttpRow& row : rows) {
    auto method = row.method < MESH_METHOD_COUNT ? row.method : std::uint8_t{MESH_METHOD_OTHER};
    auto code = row.code >= 100 && row.code <= 599 ? row.code : std::uint16_t{0};
    merged[{names.key(row.series), method, code}] += row.count;
  }
  out.family("mesh_http_requests_total",
             "HTTP/1 requests by method and status code; code 0: no response came.", Type::Counter);
  for (const auto& [key, count] : merged)
    out.sample(names.labels(key.series),
               {{"method", kMethods[key.method]}, {"code", fmt::to_string(key.code)}}, count);
}

void write_latency(TextWriter& out, SeriesNames& names, const DurationBounds& bounds,
                   const std::vector<LatencyRow>& rows) {
  std::map<SeriesKey, mesh_latency> merged;
  for (const LatencyRow& row : rows) {
    mesh_latency& sum = merged[names.key(row.series)];
    sum.sum_ns += row.latency.sum_ns;
    for (unsigned i = 0; i < MESH_LAT_BUCKETS; ++i) sum.bucket[i] += row.latency.bucket[i];
  }
  out.family("mesh_http_request_duration_seconds",
             "Time from the first byte of an HTTP/1 request to the last byte of its response.",
             Type::Histogram);
  for (const auto& [key, latency] : merged) {
    // __u64 and std::uint64_t are different types of one size.
    std::array<std::uint64_t, MESH_LAT_BUCKETS> buckets;
    std::copy(std::begin(latency.bucket), std::end(latency.bucket), buckets.begin());
    out.histogram(names.labels(key), bounds, buckets, Nanoseconds{latency.sum_ns});
  }
}

template <std::size_t N>
void write_array(TextWriter& out, std::string_view family, std::string_view help,
                 std::string_view label, const std::array<std::string_view, N>& texts,
                 const std::array<std::uint64_t, N>& counts) {
  out.family(family, help, Type::Counter);
  for (std::size_t i = 0; i < N; ++i) out.sample({{label, texts[i]}}, counts[i]);
}

void write_degraded(TextWriter& out, const std::vector<DegradedFeature>& rows) {
  std::map<std::string, bool> merged;
  for (const DegradedFeature& row : rows) merged[clean_utf8(row.feature)] |= row.active;
  out.family("mesh_degraded", "1 while the feature runs in a degraded mode, else 0.", Type::Gauge);
  for (const auto& [feature, active] : merged) out.sample({{"feature", feature}}, active ? 1u : 0u);
}

void write_maps(TextWriter& out, const std::vector<MapUsage>& rows) {
  std::map<std::string, MapUsage> merged;
  for (const MapUsage& row : rows) {
    MapUsage& sum = merged[clean_utf8(row.map)];
    sum.entries += row.entries;
    sum.max_entries += row.max_entries;
  }
  out.family("mesh_bpf_map_entries", "Entries that the BPF map holds.", Type::Gauge);
  for (const auto& [map, usage] : merged) out.sample({{"map", map}}, usage.entries);
  out.family("mesh_bpf_map_max_entries", "Entries that the BPF map can hold.", Type::Gauge);
  for (const auto& [map, usage] : merged) out.sample({{"map", map}}, usage.max_entries);
}

std::vector<std::uint64_t> latency_bounds() {
  std::vector<std::uint64_t> bounds;
  for (unsigned i = 0; i + 1 < MESH_LAT_BUCKETS; ++i) bounds.push_back(latency_bound_ns(i));
  return bounds;
}

}  // namespace

std::uint64_t latency_bound_ns(unsigned index) {
  if (index == 0) return 1ull << MESH_LAT_SHIFT;
  std::uint64_t power = 1ull << (MESH_LAT_SHIFT + (index - 1) / 2);
  return index % 2 == 1 ? power + power / 2 : power * 2;
}

MeshCollector::MeshCollector(MeshSource& source) : source_(source), bounds_(latency_bounds()) {}

Status MeshCollector::collect(TextWriter& out) {
  Errors errors;
  auto l4 = errors.take(source_.l4_rows(), "connection series");
  auto failed = errors.take(source_.failed_rows(), "failed connections");
  auto http = errors.take(source_.http_rows(), "HTTP requests");
  auto latency = errors.take(source_.latency_rows(), "HTTP latency");
  auto denials = errors.take(source_.denials(), "denials");
  auto events = errors.take(source_.events(), "events");
  auto maps = errors.take(source_.map_usage(), "map usage");
  auto degraded = errors.take(source_.degraded_features(), "degraded features");
  auto label_names = errors.take(source_.label_names(), "label names");

  // Without names there are no series: writing them all as "unknown" would look like counter
  // resets.
  if (label_names) {
    SeriesNames names(*label_names);
    if (l4) write_l4(out, names, *l4);
    if (failed) write_failed(out, names, *failed);
    if (http) write_http(out, names, *http);
    if (latency) write_latency(out, names, bounds_, *latency);
  }
  if (denials)
    write_array(out, "mesh_denied_total", "Connections and packets refused, by reason.", "reason",
                kDenials, *denials);
  if (events)
    write_array(out, "mesh_events_total", "Events of the data path that have no series.", "event",
                kEvents, *events);
  if (degraded) write_degraded(out, *degraded);
  if (maps) write_maps(out, *maps);
  out.family("mesh_build_info", "Constant 1; the labels say what is running.", Type::Gauge);
  out.sample({{"version", MESH_VERSION}, {"abi", fmt::to_string(MESH_ABI_VERSION)}}, 1u);
  return errors.status();
}

}  // namespace mesh::metrics
