// SPDX-License-Identifier: Apache-2.0
// service-resolver.
#include <fmt/format.h>

#include <algorithm>

#include "agent/base/ascii.h"
#include "agent/config/defaults.h"
#include "agent/config/entry_fields.h"
#include "agent/config/filter.h"

namespace mesh::config {
namespace {

using syntax::Fields;
using syntax::printable;

// As they are written, before they are Targets.
struct RedirectFields {
  Target to;
};

struct TargetFields {
  Target to;
};

struct FailoverFields {
  Target to;
  std::vector<std::string> datacenters;
  std::vector<TargetFields> targets;
};

enum class HashKind : std::uint8_t { None, Header, Cookie, QueryParameter };

struct CookieFields {
  bool session = false;
  Duration ttl{};
  std::string path;
};

struct RingHashFields {
  std::uint64_t min = 0;
  std::uint64_t max = 0;
};

struct LeastRequestFields {
  std::uint32_t choices = 0;
};

struct PolicyFields {};
struct LocalityFields {};

bool is_subset_name(std::string_view name) {
  const auto good = [](char c) { return ascii::is_lower(c) || ascii::is_digit(c); };
  return !name.empty() && name.size() <= 63 && good(name.front()) && good(name.back()) &&
         std::all_of(name.begin(), name.end(), [&](char c) { return good(c) || c == '-'; });
}

constexpr std::string_view kNoPeers = "there are no peers here: nobody is found there";
constexpr std::string_view kEnterprise = "sameness groups are of Consul Enterprise";

bool is_empty(const Target& to) {
  return to.service.empty() && to.subset.empty() && to.datacenter.empty() && to.peer.empty();
}

void exclusive(Fields& f, std::string_view a, std::string_view b) {
  const auto set = [&](std::string_view key) {
    const auto* value = f.value(key);
    return value != nullptr && !syntax::is_zero(*value);
  };
  if (set(a) && set(b)) f.error(b, fmt::format("cannot be given together with {}", a));
}

void read_target(Fields& f, Target& out) {
  get_service(f, "Service", out.service);
  f.get("ServiceSubset", out.subset);
  own_tenancy(f);
  f.refuse("SamenessGroup", kEnterprise);
}

void read_place(Fields& f, Target& out) {
  f.get("Datacenter", out.datacenter);
  f.get("Peer", out.peer);
  exclusive(f, "Peer", "ServiceSubset");
  exclusive(f, "Peer", "Partition");
  exclusive(f, "Peer", "Datacenter");
  inert(f, {"Peer"}, kNoPeers);
}

void decode_fields(Fields& f, RedirectFields& out) {
  read_target(f, out.to);
  read_place(f, out.to);
  if (is_empty(out.to))
    return f.error("is empty: expected Service, ServiceSubset, Datacenter or Peer");
  if (!out.to.service.empty()) return;
  for (std::string_view key : {"ServiceSubset", "Namespace", "Partition", "Peer"}) {
    const auto* value = f.value(key);
    if (value != nullptr && !syntax::is_zero(*value)) f.error(key, "needs a Service beside it");
  }
}

void decode_fields(Fields& f, TargetFields& out) {
  read_target(f, out.to);
  read_place(f, out.to);
  exclusive(f, "Partition", "Datacenter");
}

// Of Consul Enterprise but for the word itself, which changes nothing where there is one locality.
void decode_fields(Fields& f, PolicyFields&) {
  std::string mode;
  f.get("Mode", mode);
  if (!mode.empty() && mode != "default" && mode != "sequential" && mode != "order-by-locality")
    f.wrong("Mode", "\"\", \"default\", \"sequential\" or \"order-by-locality\"");
  if (mode == "order-by-locality")
    f.warn("Mode", "localities are not known here: targets go in order");
  f.ignore("Regions");
}

void decode_fields(Fields& f, LocalityFields&) {
  std::string mode;
  f.get("Mode", mode);
  if (!mode.empty() && mode != "none" && mode != "failover")
    f.wrong("Mode", "\"\", \"none\" or \"failover\"");
  if (mode == "failover") f.warn("Mode", "has no effect: localities are not known here");
}

void decode_fields(Fields& f, FailoverFields& out) {
  read_target(f, out.to);
  f.get("Datacenters", out.datacenters);
  f.get("Targets", out.targets);
  PolicyFields policy;
  f.get("Policy", policy);
  for (std::string_view key : {"Service", "ServiceSubset", "Datacenters"})
    exclusive(f, "Targets", key);
  if (is_empty(out.to) && out.datacenters.empty() && out.targets.empty())
    f.error("is empty: expected Service, ServiceSubset, Datacenters or Targets");
  for (const auto& datacenter : out.datacenters)
    if (datacenter.empty()) f.error("Datacenters", "the name of a datacenter is empty");
}

void decode_fields(Fields& f, CookieFields& out) {
  f.get("Session", out.session);
  get_timeout(f, "TTL", out.ttl);
  f.get("Path", out.path);
  if (out.session && out.ttl != Duration::zero()) f.error("TTL", "is not for a session's cookie");
}

void decode_fields(Fields& f, RingHashFields& out) {
  f.get("MinimumRingSize", out.min);
  f.get("MaximumRingSize", out.max);
  if (out.max != 0 && out.min > out.max) f.error("MinimumRingSize", "is more than MaximumRingSize");
}

void decode_fields(Fields& f, LeastRequestFields& out) { f.get("ChoiceCount", out.choices); }

std::array<syntax::Word<HashKind>, 4> decode_words(HashKind) {
  return {{{"", HashKind::None},
           {"header", HashKind::Header},
           {"cookie", HashKind::Cookie},
           {"query_parameter", HashKind::QueryParameter}}};
}

HashField field_of(HashKind kind) {
  switch (kind) {
    case HashKind::Header:
      return HashField::Header;
    case HashKind::Cookie:
      return HashField::Cookie;
    case HashKind::QueryParameter:
      return HashField::QueryParameter;
    case HashKind::None:
      break;
  }
  return HashField::SourceIp;
}

}  // namespace

std::array<syntax::Word<Balance>, 6> decode_words(Balance) {
  return {{{"", Balance::Default},
           {"random", Balance::Random},
           {"round_robin", Balance::RoundRobin},
           {"least_request", Balance::LeastRequest},
           {"ring_hash", Balance::RingHash},
           {"maglev", Balance::Maglev}}};
}

void decode_fields(Fields& f, HashPolicy& out) {
  HashKind kind = HashKind::None;
  bool source_ip = false;
  std::optional<CookieFields> cookie;
  f.get("Field", kind);
  f.get("FieldValue", out.value);
  f.get("SourceIP", source_ip, {"source_ip"});
  f.get("Terminal", out.terminal);
  f.get("CookieConfig", cookie);
  out.field = field_of(kind);
  if (source_ip && kind != HashKind::None) f.error("SourceIP", "cannot be given with a Field");
  if (source_ip && !out.value.empty()) f.error("FieldValue", "is not for SourceIP");
  if (!source_ip && kind == HashKind::None) f.error("expected Field or SourceIP");
  if (kind != HashKind::None && out.value.empty()) f.error("Field", "needs a FieldValue");
  if (cookie && kind != HashKind::Cookie) f.error("CookieConfig", "is only for Field \"cookie\"");
  if (!cookie) return;
  out.cookie_session = cookie->session;
  out.cookie_ttl = cookie->ttl;
  out.cookie_path = cookie->path;
}

void decode_fields(Fields& f, LoadBalancer& out) {
  std::optional<RingHashFields> ring;
  std::optional<LeastRequestFields> least;
  f.get("Policy", out.policy);
  f.get("RingHashConfig", ring);
  f.get("LeastRequestConfig", least);
  f.get("HashPolicies", out.hash_policies);
  if (ring && out.policy != Balance::RingHash)
    f.error("RingHashConfig", "is only for Policy \"ring_hash\"");
  if (least && out.policy != Balance::LeastRequest)
    f.error("LeastRequestConfig", "is only for Policy \"least_request\"");
  if (!out.hash_policies.empty() && out.policy != Balance::RingHash &&
      out.policy != Balance::Maglev)
    f.error("HashPolicies", "are only for Policy \"ring_hash\" and \"maglev\"");
  if (ring) {
    out.min_ring_size = ring->min;
    out.max_ring_size = ring->max;
  }
  if (least) out.choice_count = least->choices;
  const auto sources =
      std::count_if(out.hash_policies.begin(), out.hash_policies.end(),
                    [](const auto& by) { return by.field == HashField::SourceIp; });
  const bool hashes = out.policy == Balance::RingHash || out.policy == Balance::Maglev;
  if (sources != static_cast<std::ptrdiff_t>(out.hash_policies.size()))
    f.warn("HashPolicies", fmt::format("but for SourceIP: {}", kNoRequests));
  if (hashes && sources == 0)
    f.warn("Policy", "chooses at random: SourceIP is not among the HashPolicies");
  if (out.choice_count > defaults::kMaxChoices)
    f.warn("LeastRequestConfig",
           fmt::format("ChoiceCount: as {}, which is the most that are compared",
                       defaults::kMaxChoices));
}

void decode_fields(Fields& f, Subset& out) {
  f.get("OnlyPassing", out.only_passing);
  if (!f.get("Filter", out.filter) || out.filter.empty()) return;
  auto compiled = Filter::parse(out.filter);
  if (compiled)
    out.compiled = std::move(*compiled);
  else
    f.error("Filter", compiled.error().to_string());
}

void read_fields(Fields& f, ServiceResolver& out) {
  std::optional<RedirectFields> redirect;
  std::map<std::string, FailoverFields, std::less<>> failover;
  const auto before = f.decoder().found();
  f.get("DefaultSubset", out.default_subset);
  f.get("Subsets", out.subsets);
  f.get("Redirect", redirect);
  f.get("Failover", failover);
  get_timeout(f, "ConnectTimeout", out.connect_timeout);
  f.get("RequestTimeout", out.request_timeout);
  f.get("LoadBalancer", out.load_balancer);
  LocalityFields locality;
  f.get("PrioritizeByLocality", locality);
  if (f.decoder().found() != before) return;

  for (const auto& [name, subset] : out.subsets)
    if (!is_subset_name(name))
      f.error("Subsets", fmt::format("\"{}\": expected a name of 1 to 63 small letters, digits and "
                                     "'-', with a letter or digit at both ends",
                                     printable(name)));
  // A subset of the service itself has to be here; those of others are looked for later.
  const auto known = [&](std::string_view key, const Target& to) {
    if (to.subset.empty() || (!to.service.empty() && to.service != out.name) ||
        out.subsets.find(to.subset) != out.subsets.end())
      return;
    f.error(key, fmt::format("there is no subset \"{}\" in Subsets", printable(to.subset)));
  };
  known("DefaultSubset", {{}, out.default_subset, {}, {}});
  if (redirect) {
    if (!failover.empty()) f.error("Redirect", "cannot be given together with Failover");
    known("Redirect", redirect->to);
    out.redirect = std::move(redirect->to);
  }
  for (auto& [subset, written] : failover) {
    if (subset != "*") known("Failover", {{}, subset, {}, {}});
    auto& targets = out.failover[subset].targets;
    for (auto& target : written.targets) targets.push_back(std::move(target.to));
    for (const auto& datacenter : written.datacenters) {
      targets.push_back(written.to);
      targets.back().datacenter = datacenter;
    }
    if (targets.empty()) targets.push_back(written.to);
    for (const auto& target : targets) known("Failover", target);
  }
  if (out.connect_timeout != Duration::zero()) f.warn("ConnectTimeout", std::string(kNotYet));
  if (out.request_timeout != Duration::zero()) f.warn("RequestTimeout", std::string(kNoRequests));
}

}  // namespace mesh::config
