// SPDX-License-Identifier: Apache-2.0
// What the connect hooks need beside a service's list of endpoints to choose from it: slots for
// loads, tables for sources. Where there is no room for them, a service is balanced at random.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/base/result.h"
#include "agent/bpf/loads.h"
#include "agent/bpf/map.h"
#include "mesh/balance.h"
#include "mesh/identity.h"

namespace mesh::bpf {

struct Balance {
  mesh_balance policy = MESH_BALANCE_ROUND_ROBIN;
  std::uint16_t choices = 0;  // MESH_BALANCE_LEAST_REQUEST
  std::uint32_t points = 0;   // MESH_BALANCE_SOURCE: of a ring; 0: Maglev
  bool operator==(const Balance&) const = default;
};

// Why a service is balanced at random instead of as it should be.
enum class BalanceFallback : std::uint8_t { None, LoadsFull, TablesFull, TooManyEndpoints };
inline constexpr std::size_t kBalanceFallbacks = 4;
std::string_view to_string(BalanceFallback fallback);  // "", "loads_full", ...

class Balancing {
 public:
  static constexpr std::size_t kMostTables = 448;  // of the 512 that mesh_tables has room for

  Balancing(const bpf_map* loads, const bpf_map* tables) : loads_(loads), tables_(tables) {}

  // For the generation of a service that comes after `old`: slots in `endpoints`, the table, and in
  // `next` what the hooks do with them. drop() is its opposite.
  BalanceFallback prepare(std::uint32_t label, const Balance& wanted, const mesh_service& old,
                          std::span<mesh_endpoint> endpoints, mesh_service& next);
  Status drop(std::uint32_t label, const mesh_service& service,
              std::span<const mesh_endpoint> endpoints);
  // Whether what fell back might be as it should be now.
  [[nodiscard]] bool has_room(BalanceFallback fallback, std::size_t endpoints) const;

  // What an earlier agent left: first forget_all(), then every service, then the rest goes.
  void forget_all();
  void adopt(std::uint32_t label, const mesh_service& service,
             std::span<const mesh_endpoint> endpoints);
  // Compares with what is in the map: takes out what belongs to no table, and names the services
  // whose table is not as it was written, which want another. After adopt() a table is right if all
  // of it is there.
  struct Checked {
    std::size_t erased = 0;
    std::set<std::uint32_t> wrong;  // labels
  };
  Result<Checked> check_tables();

  [[nodiscard]] Loads& loads() { return loads_; }
  [[nodiscard]] const Loads& loads() const { return loads_; }

 private:
  BalanceFallback write_table(std::uint32_t label, std::uint32_t points,
                              std::span<const mesh_endpoint> endpoints, mesh_service& next);
  Status erase_chunks(std::uint32_t label, std::uint32_t generation, std::size_t chunks);

  Loads loads_;
  struct Table {
    std::size_t chunks = 0;
    std::optional<std::uint64_t> sum;  // over the chunks; none: not known yet
  };
  Map<mesh_table_key, mesh_table_chunk> tables_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, Table> written_;  // label, generation
};

}  // namespace mesh::bpf
