// SPDX-License-Identifier: Apache-2.0
// Intentions in terms of addresses and labels: what answers at an address and port is looked up in
// the very content that the hooks have, and judged by the one function there is. The control thread
// publishes whole snapshots.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "agent/bpf/policy_map.h"
#include "agent/capture/desired.h"
#include "agent/capture/labels.h"
#include "agent/policy/policy.h"

namespace mesh::capture {

class PolicyView {
 public:
  PolicyView(std::shared_ptr<const policy::Policy> policy,
             std::shared_ptr<const Identities> identities, const Labels& labels);
  // With what compile() has made of both before.
  PolicyView(std::shared_ptr<const policy::Policy> policy,
             std::shared_ptr<const Identities> identities, std::shared_ptr<const LabelNames> names,
             std::shared_ptr<const bpf::PolicyTable> table);

  [[nodiscard]] const policy::Policy& policy() const { return *policy_; }
  [[nodiscard]] const Identities& identities() const { return *identities_; }
  // What the hooks look up.
  [[nodiscard]] const bpf::PolicyTable& table() const { return *table_; }
  // Nothing that anybody could ask for is denied.
  [[nodiscard]] bool trivial() const { return table_->default_allow && table_->pairs.empty(); }

  // The decision points into policy(). `source` is empty for a workload that no service names.
  [[nodiscard]] policy::Decision decide(std::string_view source, const Endpoint& server) const;
  [[nodiscard]] policy::Decision decide(std::uint32_t source, const Endpoint& server) const {
    return decide(name_of(source), server);
  }
  // The service that the decision was about, for people; "-" if there is none.
  [[nodiscard]] std::string_view destination_at(const Endpoint& server) const;

  // Empty for labels of nobody.
  [[nodiscard]] std::string_view name_of(std::uint32_t label) const;
  [[nodiscard]] std::uint32_t label_of_netns(std::uint64_t cookie) const;
  // Whether the workload in that namespace has the address.
  [[nodiscard]] bool owns(std::uint64_t cookie, const Address& address) const;
  // Whether a service has that port and lets no plaintext from outside in.
  [[nodiscard]] bool strict(const Endpoint& server) const;

 private:
  std::shared_ptr<const policy::Policy> policy_;
  std::shared_ptr<const Identities> identities_;
  std::shared_ptr<const LabelNames> names_;
  std::shared_ptr<const bpf::PolicyTable> table_;
};

class PolicyDirectory {
 public:
  void publish(std::shared_ptr<const PolicyView> view) { current_.store(std::move(view)); }
  // Any thread; null before the first catalog.
  [[nodiscard]] std::shared_ptr<const PolicyView> get() const { return current_.load(); }

 private:
  std::atomic<std::shared_ptr<const PolicyView>> current_;
};

// What the entries of a catalog say, for its services.
std::shared_ptr<const policy::Policy> policy_of(const catalog::Catalog& catalog,
                                                policy::Verdict default_verdict);

// Intentions between names that have labels; others name nobody that could connect.
bpf::PolicyTable compile(const policy::Policy& policy,
                         const std::map<std::string, std::uint32_t, std::less<>>& labels);

}  // namespace mesh::capture
