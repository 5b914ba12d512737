// SPDX-License-Identifier: Apache-2.0
// Any text as a file of config entries and definitions, in every syntax: refused with places, or a
// set whose chains can be resolved and compiled, and the same each time.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "agent/config/chain.h"
#include "agent/config/entry_reader.h"
#include "agent/config/entry_set.h"
#include "agent/syntax/read.h"

namespace {

using namespace mesh;

config::Protocol http(std::string_view) { return config::Protocol::Http; }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto format = static_cast<syntax::Format>(data[0] % 3);
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const auto documents = syntax::read_documents(format, text);
  if (!documents) return 0;

  syntax::ErrorList errors;
  syntax::ErrorList warnings;
  syntax::Decoder decoder("f", errors, warnings);
  std::vector<config::EntryDefinition> definitions;
  for (const auto& document : *documents) {
    if (config::is_entry(document)) config::read_entry(document, {}, decoder, definitions);
    config::read_bootstrap(document, syntax::Path("config_entries"), decoder, definitions);
  }
  config::EntrySet set;
  set.add(std::move(definitions), errors);
  set.check(http, errors);
  for (const auto& error : errors.take())
    if (error.what.empty()) std::abort();

  syntax::ErrorList chains;
  set.check(http, chains);
  if (!chains.empty()) return 0;
  const auto& entries = set.entries();
  const auto visit = [&](const std::string& name) {
    const auto chain = config::compile_chain(entries, name);
    for (const auto& route : chain.routes) {
      std::uint64_t sum = 0;
      if (route.legs.empty() || route.legs.size() > config::kMaxChainLegs) std::abort();
      for (const auto& leg : route.legs) sum += leg.weight;
      if (sum != 10'000) std::abort();
    }
    const auto resolution = config::resolve(entries, name);
    if (!resolution.target.subset.empty() && resolution.target.peer.empty() &&
        config::subset_of(entries, resolution.target) == nullptr)
      std::abort();
  };
  for (const auto& [name, entry] : entries.routers) visit(name);
  for (const auto& [name, entry] : entries.splitters) visit(name);
  for (const auto& [name, entry] : entries.resolvers) visit(name);
  return 0;
}
