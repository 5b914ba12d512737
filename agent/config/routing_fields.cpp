// SPDX-License-Identifier: Apache-2.0
// service-router and service-splitter.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "agent/config/entry_fields.h"

namespace mesh::config {
namespace {

using syntax::Fields;

constexpr std::uint32_t kWholeWeight = 10'000;

constexpr std::array kHeaderMatchers{
    Matcher{"Present", MatchBy::Present}, Matcher{"Exact", MatchBy::Exact},
    Matcher{"Prefix", MatchBy::Prefix}, Matcher{"Suffix", MatchBy::Suffix},
    Matcher{"Regex", MatchBy::Regex}};
constexpr std::array kQueryMatchers{Matcher{"Present", MatchBy::Present},
                                    Matcher{"Exact", MatchBy::Exact},
                                    Matcher{"Regex", MatchBy::Regex}};

constexpr std::array<std::string_view, 12> kRetryOn{"5xx",
                                                    "gateway-error",
                                                    "reset",
                                                    "connect-failure",
                                                    "envoy-ratelimited",
                                                    "retriable-4xx",
                                                    "refused-stream",
                                                    "cancelled",
                                                    "deadline-exceeded",
                                                    "internal",
                                                    "resource-exhausted",
                                                    "unavailable"};

struct RouteMatch {
  std::optional<HttpMatch> http;
};

void decode_fields(Fields& f, RouteMatch& out) { f.get("HTTP", out.http); }

}  // namespace

void decode_fields(Fields& f, HeaderMatch& out) {
  f.required("Name", out.name);
  read_matcher(f, kHeaderMatchers, out.by, out.value);
  f.get("Invert", out.invert);
}

void decode_fields(Fields& f, QueryParamMatch& out) {
  f.required("Name", out.name);
  read_matcher(f, kQueryMatchers, out.by, out.value);
}

void decode_fields(Fields& f, HttpMatch& out) {
  read_path(f, out);
  if (f.get("CaseInsensitive", out.case_insensitive) && out.case_insensitive &&
      out.path_by != PathBy::Exact && out.path_by != PathBy::Prefix)
    f.error("CaseInsensitive", "is only for PathExact and PathPrefix");
  f.get("Header", out.headers);
  f.get("QueryParam", out.query);
  read_methods(f, out.methods);
}

void decode_fields(Fields& f, RouteDestination& out) {
  get_service(f, "Service", out.service);
  f.get("ServiceSubset", out.subset);
  own_tenancy(f);
  f.get("PrefixRewrite", out.prefix_rewrite);
  get_timeout(f, "IdleTimeout", out.idle_timeout);
  f.get("RequestTimeout", out.request_timeout);
  f.get("NumRetries", out.retries);
  f.get("RetryOnConnectFailure", out.retry_on_connect_failure);
  f.get("RetryOn", out.retry_on);
  for (const auto& condition : out.retry_on)
    if (std::find(kRetryOn.begin(), kRetryOn.end(), condition) == kRetryOn.end())
      f.error("RetryOn", fmt::format("unknown condition \"{}\": expected one of {}",
                                     syntax::printable(condition), fmt::join(kRetryOn, ", ")));
  f.get("RetryOnStatusCodes", out.retry_on_status_codes);
  for (auto code : out.retry_on_status_codes)
    if (code < 100 || code > 599)
      f.error("RetryOnStatusCodes", fmt::format("{} is no status of HTTP", code));
  f.get("RequestHeaders", out.request_headers);
  f.get("ResponseHeaders", out.response_headers);
}

void decode_fields(Fields& f, Route& out) {
  std::optional<RouteMatch> match;
  f.get("Match", match);
  if (match) out.match = std::move(match->http);
  f.get("Destination", out.destination);
  const bool by_path =
      out.match && (out.match->path_by == PathBy::Exact || out.match->path_by == PathBy::Prefix);
  if (!out.destination.prefix_rewrite.empty() && !by_path)
    f.error("Destination", "PrefixRewrite needs a PathExact or PathPrefix in Match.HTTP");
}

void decode_fields(Fields& f, Split& out) {
  double weight = 0;
  f.get("Weight", weight);
  if (weight != 0 && !(weight >= 0.01 && weight <= 100))
    f.wrong("Weight", "0, or a number from 0.01 to 100");
  else
    out.weight = static_cast<std::uint32_t>(std::lround(weight * 100));
  get_service(f, "Service", out.service);
  f.get("ServiceSubset", out.subset);
  own_tenancy(f);
  f.get("RequestHeaders", out.request_headers);
  f.get("ResponseHeaders", out.response_headers);
}

void read_fields(Fields& f, ServiceRouter& out) {
  f.get("Routes", out.routes);
  inert(f, {"Routes"}, kNoRequests);
}

void read_fields(Fields& f, ServiceSplitter& out) {
  const auto before = f.decoder().found();
  f.get("Splits", out.splits);
  if (f.decoder().found() != before) return;
  if (out.splits.empty()) return f.error("Splits", "expected at least one split");
  std::uint64_t sum = 0;
  std::set<std::pair<std::string, std::string>> seen;
  for (const auto& split : out.splits) {
    sum += split.weight;
    const auto& service = split.service.empty() ? out.name : split.service;
    if (!seen.emplace(service, split.subset).second)
      f.error("Splits",
              fmt::format("\"{}\"{} is there twice", syntax::printable(service),
                          split.subset.empty() ? std::string()
                                               : fmt::format(" with subset \"{}\"",
                                                             syntax::printable(split.subset))));
  }
  if (sum != kWholeWeight)
    f.error("Splits",
            fmt::format("the weights must have a sum of 100, not {}.{:02}", sum / 100, sum % 100));
  inert(f, {"Splits"}, kNoRequests);
}

}  // namespace mesh::config
