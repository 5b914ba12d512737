// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/intentions.h"

#include <fmt/core.h>

#include "agent/admin/client.h"
#include "agent/catalog/directory_pass.h"

namespace mesh::admin {
namespace {

using nlohmann::json;

constexpr int kAllowed = 0;
constexpr int kDenied = 1;
constexpr int kUnknown = 2;

json intention_json(const policy::Intention& intention) {
  return {{"source", intention.source},          {"destination", intention.destination},
          {"precedence", intention.precedence},  {"action", to_string(intention.verdict)},
          {"why", to_string(intention.why)},     {"permissions", intention.permissions},
          {"description", intention.description}};
}

std::uint32_t label_of(const capture::Controller& controller, const std::string& name) {
  const auto& labels = controller.labels().all();
  const auto it = labels.find(name);
  return it == labels.end() ? std::uint32_t{MESH_LABEL_UNKNOWN} : it->second;
}

Result<std::shared_ptr<const policy::Policy>> read_policy(const Options& options) {
  auto vips = catalog::VipAllocator::create(*options.vip_cidr6);
  if (!vips) return tl::unexpected(std::move(vips).error());
  catalog::DirectoryPass pass(options.config_dir, std::move(*vips), std::nullopt);
  auto outcome = pass.run(true);
  // Somebody writes at this very moment.
  for (int i = 0; i < 3 && outcome.kind == catalog::DirectoryPass::Outcome::Kind::Unstable; ++i)
    outcome = pass.run(true);
  if (!outcome.errors.empty()) return fail("{}", outcome.errors.front().to_string());
  if (!outcome.catalog) return fail("{} keeps changing", options.config_dir);
  return capture::policy_of(*outcome.catalog, options.default_policy);
}

Result<json> answer_offline(const Options& options) {
  auto policy = read_policy(options);
  if (!policy) return tl::unexpected(std::move(policy).error());
  if (options.intention_source.empty())
    return match_report(**policy, options.intention_destination);
  return check_report(**policy, options.intention_source, options.intention_destination);
}

Result<json> answer_of_agent(const Options& options) {
  json request{{"command", "intention"}};
  if (options.intention_source.empty())
    request["match"] = options.intention_destination;
  else
    request["check"] = {options.intention_source, options.intention_destination};
  return ask(options.admin_socket, request);
}

void print_match(const json& list) {
  fmt::print("{:<32} {:<8} {:<32} {:>10}  {}\n", "SOURCE", "ACTION", "DESTINATION", "PRECEDENCE",
             "DESCRIPTION");
  for (const auto& one : list)
    fmt::print("{:<32} {:<8} {:<32} {:>10}  {}\n", one["source"].get<std::string>(),
               one["action"].get<std::string>(), one["destination"].get<std::string>(),
               one["precedence"].get<std::uint32_t>(), one["description"].get<std::string>());
}

}  // namespace

json check_report(const policy::Policy& policy, std::string_view source,
                  std::string_view destination) {
  const auto decision = policy.decide(source, destination);
  return {
      {"source", source},
      {"destination", destination},
      {"allowed", decision.allowed()},
      {"decided_by", decision.to_string()},
      {"intention", decision.intention == nullptr ? json() : intention_json(*decision.intention)}};
}

json match_report(const policy::Policy& policy, std::string_view destination) {
  json all = json::array();
  for (const auto* intention : policy.match(destination)) all.push_back(intention_json(*intention));
  return all;
}

Result<json> answer_intention(const capture::Controller& controller, const bpf::Datapath& datapath,
                              const json& request) {
  const auto view = controller.policy();
  if (!view) return fail("intention: the catalog has not been read yet");
  if (request.contains("match") && request["match"].is_string())
    return match_report(view->policy(), request["match"].get<std::string>());
  if (!request.contains("check") || !request["check"].is_array() || request["check"].size() != 2 ||
      !request["check"][0].is_string() || !request["check"][1].is_string())
    return fail("intention: check is a source and a destination, match a destination");
  const std::string source = request["check"][0], destination = request["check"][1];
  json report = check_report(view->policy(), source, destination);
  // A name without a label is nobody's: there is nothing that the datapath could decide.
  const auto to = label_of(controller, destination), from = label_of(controller, source);
  if (to == MESH_LABEL_UNKNOWN || from == MESH_LABEL_UNKNOWN) return report;
  auto in_force = datapath.policy.allows(to, from);
  if (!in_force) return tl::unexpected(std::move(in_force).error());
  if (*in_force != report["allowed"].get<bool>())
    return fail("intention: the datapath is not up to date, it {} this ({})",
                *in_force ? "allows" : "denies", controller.last_failure());
  return report;
}

int run_intention(const Options& options) {
  auto answer = options.offline ? answer_offline(options) : answer_of_agent(options);
  if (!answer) {
    fmt::print(stderr, "mesh-agent: {}\n", answer.error().what);
    return kUnknown;
  }
  const bool match = options.intention_source.empty();
  if (options.json)
    fmt::print("{}\n", answer->dump(2, ' ', false, json::error_handler_t::replace));
  else if (match)
    print_match(*answer);
  else
    fmt::print("{}\n{}\n", (*answer)["allowed"].get<bool>() ? "Allowed" : "Denied",
               (*answer)["decided_by"].get<std::string>());
  if (match) return kAllowed;
  return (*answer)["allowed"].get<bool>() ? kAllowed : kDenied;
}

}  // namespace mesh::admin
