// SPDX-License-Identifier: Apache-2.0
#include "agent/bpf/balancing.h"

#include <algorithm>
#include <functional>
#include <map>

#include "agent/balance/table.h"
#include "agent/bpf/abi_convert.h"

namespace mesh::bpf {
namespace {

static_assert(balance::kRingCells <= MESH_TABLE_CELLS_MAX);
static_assert(balance::kMaglevCells <= MESH_TABLE_CELLS_MAX);

std::size_t chunks_of(std::size_t cells) {
  return (cells + MESH_TABLE_CHUNK - 1) / MESH_TABLE_CHUNK;
}

// Of chunks in any order, but each in its place.
std::uint64_t sum_of(std::uint32_t chunk, const mesh_table_chunk& value) {
  const std::string_view bytes(reinterpret_cast<const char*>(&value), sizeof value);
  return std::hash<std::string_view>()(bytes) * (2 * std::uint64_t{chunk} + 1);
}

std::string name_of(const mesh_endpoint& endpoint) {
  static constexpr mesh_addr kNone{};
  const bool four = std::memcmp(&endpoint.addr4, &kNone, sizeof kNone) != 0;
  return Endpoint{from_abi(four ? endpoint.addr4 : endpoint.addr6), endpoint.port}.to_string();
}

}  // namespace

std::string_view to_string(BalanceFallback fallback) {
  switch (fallback) {
    case BalanceFallback::None:
      break;
    case BalanceFallback::LoadsFull:
      return "loads_full";
    case BalanceFallback::TablesFull:
      return "tables_full";
    case BalanceFallback::TooManyEndpoints:
      return "too_many_endpoints";
  }
  return "";
}

BalanceFallback Balancing::prepare(std::uint32_t label, const Balance& wanted,
                                   const mesh_service& old, std::span<mesh_endpoint> endpoints,
                                   mesh_service& next) {
  auto fallback = BalanceFallback::None;
  next.balance = static_cast<__u16>(wanted.policy);
  next.choices = next.cells = next.points = 0;
  for (auto& endpoint : endpoints) endpoint.load = 0;
  if (endpoints.empty()) return fallback;
  if (wanted.policy == MESH_BALANCE_LEAST_REQUEST) {
    next.choices = wanted.choices;
    for (auto& endpoint : endpoints) {
      const auto slot = loads_.acquire(endpoint);
      if (!slot) {
        fallback = BalanceFallback::LoadsFull;
        break;
      }
      endpoint.load = *slot;
    }
    if (fallback != BalanceFallback::None)
      for (auto& endpoint : endpoints) {
        loads_.release(endpoint.load);
        endpoint.load = 0;
      }
  } else if (wanted.policy == MESH_BALANCE_SOURCE) {
    // The old table goes once the new one is there: the room for a few more is for that.
    if (written_.size() - (old.cells != 0 ? 1 : 0) >= kMostTables)
      fallback = BalanceFallback::TablesFull;
    else
      fallback = write_table(label, wanted.points, endpoints, next);
  }
  if (fallback == BalanceFallback::None) return fallback;
  next.balance = MESH_BALANCE_RANDOM;
  next.choices = 0;
  return fallback;
}

BalanceFallback Balancing::write_table(std::uint32_t label, std::uint32_t points,
                                       std::span<const mesh_endpoint> endpoints,
                                       mesh_service& next) {
  // The list may name an endpoint again, for its family.
  std::map<std::string, std::uint16_t> seen;
  std::vector<balance::Backend> backends;
  std::vector<std::uint16_t> index;
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    if (i > 0xffff) return BalanceFallback::TooManyEndpoints;
    auto name = name_of(endpoints[i]);
    if (!seen.emplace(name, static_cast<std::uint16_t>(i)).second) continue;
    backends.push_back({std::move(name), endpoints[i].weight});
    index.push_back(static_cast<std::uint16_t>(i));
  }
  const auto table = points == 0 ? balance::maglev(backends) : balance::ring(backends, points);
  if (table.empty()) return BalanceFallback::TooManyEndpoints;
  Table written{chunks_of(table.size()), 0};
  for (std::size_t chunk = 0; chunk < written.chunks; ++chunk) {
    mesh_table_chunk value{};
    const auto begin = chunk * MESH_TABLE_CHUNK;
    const auto end = std::min<std::size_t>(begin + MESH_TABLE_CHUNK, table.size());
    for (auto cell = begin; cell < end; ++cell) value.endpoint[cell - begin] = index[table[cell]];
    const mesh_table_key key{label, next.generation, static_cast<__u32>(chunk)};
    *written.sum += sum_of(key.chunk, value);
    if (tables_.put(key, value)) continue;
    (void)erase_chunks(label, next.generation, chunk);  // costs room, and read_services() sweeps
    return BalanceFallback::TablesFull;
  }
  next.cells = static_cast<__u32>(table.size());
  next.points = points;
  written_.insert_or_assign({label, next.generation}, written);
  return BalanceFallback::None;
}

Status Balancing::erase_chunks(std::uint32_t label, std::uint32_t generation, std::size_t chunks) {
  for (std::size_t chunk = 0; chunk < chunks; ++chunk)
    MESH_TRY(tables_.erase({label, generation, static_cast<__u32>(chunk)}), "drop a table");
  return {};
}

Status Balancing::drop(std::uint32_t label, const mesh_service& service,
                       std::span<const mesh_endpoint> endpoints) {
  for (const auto& endpoint : endpoints) loads_.release(endpoint.load);
  if (service.cells == 0) return {};
  written_.erase({label, service.generation});
  return erase_chunks(label, service.generation, chunks_of(service.cells));
}

bool Balancing::has_room(BalanceFallback fallback, std::size_t endpoints) const {
  return (fallback == BalanceFallback::LoadsFull && loads_.has_room(endpoints)) ||
         (fallback == BalanceFallback::TablesFull && written_.size() < kMostTables);
}

void Balancing::forget_all() {
  loads_.forget_all();
  written_.clear();
}

void Balancing::adopt(std::uint32_t label, const mesh_service& service,
                      std::span<const mesh_endpoint> endpoints) {
  for (const auto& endpoint : endpoints) loads_.adopt(endpoint);
  if (service.cells != 0)
    written_.insert_or_assign({label, service.generation},
                              Table{chunks_of(service.cells), std::nullopt});
}

Result<Balancing::Checked> Balancing::check_tables() {
  Checked checked;
  std::map<std::pair<std::uint32_t, std::uint32_t>, Table> found;
  std::vector<mesh_table_key> nobodys;
  MESH_TRY(tables_.for_each([&](const mesh_table_key& key, const mesh_table_chunk& value) {
    const auto it = written_.find({key.service, key.generation});
    if (it == written_.end() || key.chunk >= it->second.chunks) return nobodys.push_back(key);
    auto& table = found.try_emplace(it->first, Table{0, 0}).first->second;
    ++table.chunks;
    *table.sum += sum_of(key.chunk, value);
  }),
           "tables");
  for (const auto& key : nobodys) {
    MESH_TRY(tables_.erase(key), "tables");
    ++checked.erased;
  }
  for (auto& [at, written] : written_) {
    const Table& now = found[at];
    if (now.chunks == written.chunks && !written.sum) written.sum = now.sum;
    if (now.chunks != written.chunks || now.sum != written.sum) checked.wrong.insert(at.first);
  }
  return checked;
}

}  // namespace mesh::bpf
