// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/own_node.h"

#include <chrono>
#include <thread>

#include "agent/catalog/directory_pass.h"

namespace mesh::catalog {
namespace {

using Kind = DirectoryPass::Outcome::Kind;

constexpr int kTries = 20;  // while the files are being written
constexpr std::chrono::milliseconds kPause{100};

}  // namespace

Result<std::vector<Cidr>> ranges_of_node(const std::string& directory, const std::string& name) {
  // The VIPs that it gives away are thrown away with the catalog.
  auto vips = VipAllocator::create(*Cidr::parse(std::string(kDefaultVipPrefix6)));
  if (!vips) return tl::unexpected(std::move(vips).error());
  DirectoryPass pass(directory, std::move(*vips), std::nullopt);
  auto outcome = pass.run(/*forced=*/true);
  for (int i = 1; i < kTries && outcome.kind == Kind::Unstable; ++i) {
    std::this_thread::sleep_for(kPause);
    outcome = pass.run(/*forced=*/true);
  }
  if (outcome.kind == Kind::Bad) return fail("{}", outcome.errors.front().to_string());
  if (outcome.kind != Kind::Good) return fail("the files in {} keep changing", directory);
  const auto& nodes = outcome.catalog->nodes();
  const auto it = nodes.find(name);
  if (it == nodes.end())
    return fail("no node in {} has the name \"{}\" (--node-name)", directory, name);
  return it->second.cidrs;
}

}  // namespace mesh::catalog
