// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/switches.h"

#include <charconv>
#include <optional>

namespace mesh::admin {
namespace {

std::optional<bool> on_off(std::string_view text) {
  if (text == "on") return true;
  if (text == "off") return false;
  return std::nullopt;
}

std::optional<std::uint32_t> number(std::string_view text) {
  std::uint32_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

Result<nlohmann::json> set_switches(bpf::Datapath& datapath, const nlohmann::json& request,
                                    capture::Mesh* mesh) {
  if (!request.contains("set") || !request["set"].is_array())
    return fail("debug: set is a list of key=value");
  auto accel = datapath.accel();
  std::optional<bool> metrics;
  std::optional<bool> psk;
  std::optional<std::uint32_t> idle_legs;
  for (const auto& item : request["set"]) {
    if (!item.is_string()) return fail("debug: set is a list of key=value");
    const std::string text = item.get<std::string>();
    const auto equals = text.find('=');
    const std::string key = text.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : text.substr(equals + 1);
    bool good = false;
    if (key == "accel" || key == "metrics" || key == "psk") {
      const auto state = on_off(value);
      good = state.has_value();
      if (good && key == "accel") accel.enabled = *state;
      if (good && key == "metrics") metrics = *state;
      if (good && key == "psk") psk = *state;
    } else if (key == "accel-budget" || key == "accel-max-write") {
      const auto bytes = number(value);
      good = bytes.has_value() && *bytes != 0;
      if (good) (key == "accel-budget" ? accel.budget_bytes : accel.max_write_bytes) = *bytes;
    } else if (key == "mesh-idle-legs") {
      idle_legs = number(value);
      good = idle_legs.has_value();
    } else {
      return fail(
          "debug: '{}' is not a switch: accel, accel-budget, accel-max-write, mesh-idle-legs, "
          "metrics, psk",
          key);
    }
    if (!good)
      return fail("debug: '{}' is not a value for {} (on or off, or a number)", value, key);
  }
  if ((psk || idle_legs) && mesh == nullptr)
    return fail("debug: psk and mesh-idle-legs need an agent with identities");
  if (auto status = datapath.set_accel(accel); !status)
    return tl::unexpected(std::move(status).error());
  if (metrics)
    if (auto status = datapath.set_metrics(*metrics); !status)
      return tl::unexpected(std::move(status).error());
  nlohmann::json now{{"accel", accel.enabled},
                     {"accel_budget_bytes", accel.budget_bytes},
                     {"accel_max_write_bytes", accel.max_write_bytes},
                     {"metrics", datapath.metrics_enabled()}};
  if (mesh != nullptr) {
    if (psk) mesh->set_psk(*psk);
    if (idle_legs) mesh->set_idle_legs(*idle_legs);
    now["psk"] = mesh->psk();
    now["mesh_idle_legs"] = mesh->idle_legs().limit;
  }
  return now;
}

}  // namespace mesh::admin
