// SPDX-License-Identifier: Apache-2.0
#include "tests/netns/intentions.h"

#include <filesystem>
#include <map>
#include <set>

#include "tests/support/must.h"

namespace mesh::test {
namespace {

std::string file_of(const std::string& destination) {
  return fmt::format("intentions-{}.json", destination == "*" ? "any" : destination);
}

}  // namespace

void write_intentions(Node& node, const std::vector<TestIntention>& intentions) {
  std::map<std::string, nlohmann::json> files;
  for (const auto& one : intentions) {
    auto& entry = files[one.destination];
    if (entry.is_null())
      entry = {{"Kind", "service-intentions"},
               {"Name", one.destination},
               {"Sources", nlohmann::json::array()}};
    nlohmann::json source{{"Name", one.source}};
    if (!one.action.empty()) source["Action"] = one.action;
    for (const auto& [action, prefix] : one.permissions)
      source["Permissions"].push_back({{"Action", action}, {"HTTP", {{"PathPrefix", prefix}}}});
    entry["Sources"].push_back(std::move(source));
  }
  std::set<std::string> names;
  for (const auto& [name, entry] : files) {
    names.insert(file_of(name));
    node.write_config(file_of(name), entry.dump(2));
  }
  std::vector<std::string> stale;
  for (const auto& file : std::filesystem::directory_iterator(node.config_dir()))
    if (const auto name = file.path().filename().string();
        name.starts_with("intentions-") && !names.contains(name))
      stale.push_back(name);
  for (const auto& name : stale) node.write_config(name, "");
}

void wait_intentions(Agent& agent, const std::vector<TestIntention>& intentions,
                     const std::vector<std::string>& destinations) {
  for (const auto& destination : destinations) {
    std::multiset<std::string> wanted;
    for (const auto& one : intentions)
      if (one.destination == destination || one.destination == "*")
        wanted.insert(fmt::format("{}>{} {} {}", one.source, one.destination,
                                  one.permissions.size(), one.action));
    const auto in_force = eventually(
        kSettle,
        [&]() -> ::testing::AssertionResult {
          const auto result = agent.cli({"intention", "match", destination, "--json"});
          const auto shown = nlohmann::json::parse(result.out, nullptr, false);
          if (!shown.is_array()) return ::testing::AssertionFailure() << result.describe();
          std::multiset<std::string> seen;
          for (const auto& one : shown) {
            const auto permissions = one["permissions"].get<std::size_t>();
            seen.insert(
                fmt::format("{}>{} {} {}", one["source"].get<std::string>(),
                            one["destination"].get<std::string>(), permissions,
                            permissions == 0 ? one["action"].get<std::string>() : std::string()));
          }
          if (seen == wanted) return ::testing::AssertionSuccess();
          return ::testing::AssertionFailure() << shown;
        },
        "the intentions for " + destination + " are in force");
    if (!in_force) throw SetupFailed(in_force.message());
  }
}

bool check_allows(const Agent& agent, const std::string& source, const std::string& destination) {
  const auto result = agent.cli({"intention", "check", source, destination});
  const bool allowed = result.out.starts_with("Allowed\n");
  const bool denied = result.out.starts_with("Denied\n");
  if (result.status.code != (allowed ? 0 : 1) || allowed == denied)
    throw SetupFailed(result.describe());
  return allowed;
}

}  // namespace mesh::test
