// SPDX-License-Identifier: Apache-2.0
// What has to hold between entries. Each rule looks at one entry and what it names, so the whole
// takes time linear in the set and no chain is walked twice for nothing.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "agent/config/chain.h"
#include "agent/config/chain_walk.h"
#include "agent/syntax/errors.h"

namespace mesh::config {
namespace {

using syntax::printable;

class Checker {
 public:
  Checker(const Entries& entries, const ProtocolOf& protocol_of)
      : entries_(entries), protocol_of_(protocol_of) {}

  std::vector<ChainProblem> run() {
    for (const auto& [name, router] : entries_.routers) check(router);
    for (const auto& [name, splitter] : entries_.splitters) check(splitter);
    for (const auto& [name, resolver] : entries_.resolvers) check(resolver);
    for (const auto& [name, splitter] : entries_.splitters) (void)legs(name);
    return std::move(problems_);
  }

 private:
  // The entry that is looked at, for problems.
  struct Owner {
    Kind kind;
    std::string_view name;
  };

  void problem(const Owner& owner, std::string key, std::string what) {
    problems_.push_back({owner.kind, std::string(owner.name), std::move(key), std::move(what)});
  }

  void needs_http(const Owner& owner) {
    const auto protocol = protocol_of_(owner.name);
    if (is_http_like(protocol)) return;
    problem(owner, "",
            fmt::format("service \"{}\" has protocol \"{}\", but a {} needs one whose requests can "
                        "be told apart: set Protocol to \"http\", \"http2\" or \"grpc\" in its "
                        "service-defaults",
                        printable(owner.name), to_string(protocol), to_string(owner.kind)));
  }

  // `key` is that of the place that names the target.
  void same_protocol(const Owner& owner, std::string_view service, const std::string& key) {
    const auto own = protocol_of_(owner.name);
    const auto other = protocol_of_(service);
    if (own == other) return;
    problem(
        owner, key,
        fmt::format("service \"{}\" has protocol \"{}\" and \"{}\" has \"{}\": a chain has one "
                    "protocol",
                    printable(service), to_string(other), printable(owner.name), to_string(own)));
  }

  // Where `from` leads exists and may be used.
  void leads_somewhere(const Owner& owner, const ChainTarget& from, const std::string& key) {
    const auto walk = follow(entries_, from);
    if (walk.circular) {
      // Told by the resolvers of the circle only.
      if (owner.kind != Kind::ServiceResolver || from.service != owner.name) return;
      if (walk.passed.size() <= kMaxChainDepth && walk.target.service != owner.name) return;
      std::string names;
      for (const auto& target : walk.passed) names += to_string(target) + " -> ";
      problem(owner, key,
              fmt::format("redirects go in a circle or further than {} services: {}{}",
                          kMaxChainDepth, printable(names), printable(to_string(walk.target))));
      return;
    }
    // The rest of a walk is checked where its redirects are written down.
    if (from.peer.empty()) same_protocol(owner, from.service, key);
    const auto& target = walk.target;
    if (target.subset.empty() || !target.peer.empty() || subset_of(entries_, target) != nullptr)
      return;
    // Told by the one that named it.
    if (walk.passed.size() > (owner.kind == Kind::ServiceResolver ? 1 : 0)) return;
    const bool has_resolver = entries_.resolvers.find(target.service) != entries_.resolvers.end();
    problem(owner, key,
            fmt::format("service \"{}\" has no subset \"{}\"{}", printable(target.service),
                        printable(target.subset),
                        has_resolver ? " in its service-resolver" : ", nor a service-resolver"));
  }

  void check(const ServiceRouter& router) {
    const Owner owner{Kind::ServiceRouter, router.name};
    needs_http(owner);
    for (std::size_t i = 0; i < router.routes.size(); ++i) {
      const auto& to = router.routes[i].destination;
      leads_somewhere(owner, {std::string(or_else(to.service, router.name)), to.subset, {}, {}},
                      fmt::format("Routes[{}].Destination", i));
    }
  }

  void check(const ServiceSplitter& splitter) {
    const Owner owner{Kind::ServiceSplitter, splitter.name};
    needs_http(owner);
    for (std::size_t i = 0; i < splitter.splits.size(); ++i) {
      const auto& to = splitter.splits[i];
      leads_somewhere(owner, {std::string(or_else(to.service, splitter.name)), to.subset, {}, {}},
                      fmt::format("Splits[{}]", i));
    }
  }

  void check(const ServiceResolver& resolver) {
    const Owner owner{Kind::ServiceResolver, resolver.name};
    const ChainTarget self{resolver.name, {}, {}, {}};
    if (resolver.redirect) {
      leads_somewhere(owner, self, "Redirect");
      const auto to = rewrite(self, *resolver.redirect);
      if (to.peer.empty()) same_protocol(owner, to.service, "Redirect");
    }
    for (const auto& [subset, failover] : resolver.failover) {
      for (std::size_t i = 0; i < failover.targets.size(); ++i) {
        auto from = self;
        if (subset != "*") from.subset = subset;
        leads_somewhere(owner, rewrite(from, failover.targets[i]),
                        fmt::format("Failover[{}].Targets[{}]", printable(subset), i));
      }
    }
  }

  // How many legs a splitter has once others are put into it; 0: it could not be said.
  std::size_t legs(std::string_view name) {
    const auto found = entries_.splitters.find(name);
    if (found == entries_.splitters.end()) return 1;
    if (auto known = legs_.find(found->first); known != legs_.end()) return known->second;
    const Owner owner{Kind::ServiceSplitter, found->first};
    if (path_.size() == kMaxChainDepth ||
        std::find(path_.begin(), path_.end(), found->first) != path_.end()) {
      problem(owner, "",
              fmt::format("splits go in a circle or further than {} splitters: {} -> {}",
                          kMaxChainDepth, printable(fmt::format("{}", fmt::join(path_, " -> "))),
                          printable(name)));
      return legs_[found->first] = 0;
    }
    path_.push_back(found->first);
    std::size_t sum = 0;
    bool good = true;
    for (const auto& split : found->second.splits) {
      const bool again = split.subset.empty() && !split.service.empty() && split.service != name;
      const auto below = again ? legs(split.service) : 1;
      good = good && below != 0;
      sum += below;
    }
    path_.pop_back();
    if (good && sum > kMaxChainLegs) {
      problem(owner, "",
              fmt::format("more than {} splits, with those of the splitters it leads to",
                          kMaxChainLegs));
      good = false;
    }
    return legs_[found->first] = good ? sum : 0;
  }

  const Entries& entries_;
  const ProtocolOf& protocol_of_;
  std::vector<ChainProblem> problems_;
  std::map<std::string_view, std::size_t> legs_;
  std::vector<std::string_view> path_;  // of splitters that are being counted
};

}  // namespace

std::vector<ChainProblem> check_chains(const Entries& entries, const ProtocolOf& protocol_of) {
  return Checker(entries, protocol_of).run();
}

}  // namespace mesh::config
