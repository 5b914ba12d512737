// SPDX-License-Identifier: Apache-2.0
// What a store answers, as arbitrary bytes: the gateway's answers and its stream cut anywhere, then
// what they hold as keys and values. No crash, no unbounded message, and no catalog that breaks the
// rules which everybody else relies on.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string_view>

#include "agent/store/base64.h"
#include "agent/store/content.h"
#include "agent/store/etcd_codec.h"

namespace {

using namespace mesh;
using namespace mesh::store;

void require(bool condition, const char* what) {
  if (condition) return;
  (void)std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

void check_text(std::string_view text) { require(text.size() < 4096, "a message is short"); }

template <typename T>
void check_error(const Result<T>& result) {
  if (!result) check_text(result.error().what);
}

void check_catalog(Content& content, const catalog::Catalog& catalog) {
  std::set<Address> vips;
  std::set<Endpoint> endpoints;
  for (const auto& [name, service] : catalog.services()) {
    const auto& entries = catalog.entries();
    require(!service.instances.empty() || entries.resolvers.contains(name) ||
                entries.splitters.contains(name) || entries.routers.contains(name),
            "a service has instances, or an entry is for it");
    require(catalog::VipAllocator::is_assignable(service.vip4), "a VIP may be one");
    require(vips.insert(service.vip4).second, "a VIP is one service's");
    for (const auto& instance : service.instances)
      require(endpoints.insert(instance.endpoint()).second, "an endpoint is one instance's");
  }
  for (const auto& [name, node] : catalog.nodes())
    for (const auto& cidr : node.cidrs)
      for (const auto& [other, two] : catalog.nodes())
        for (const auto& range : two.cidrs)
          require((name == other && cidr == range) || !cidr.overlaps(range), "ranges are apart");
  for (const auto& [instance, status] : content.health()->others)
    require(status != catalog::CheckStatus::Passing, "only what is not passing is listed");
  for (const auto& refusal : content.refusals(100)) {
    check_text(refusal.key);
    check_text(refusal.reason);
    for (char c : refusal.key)
      require(static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f,
              "a key in a message is ASCII");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto range = etcd::read_range(text);
  check_error(range);
  check_error(etcd::read_txn(text));
  check_error(etcd::read_grant(text));
  check_error(etcd::read_renewal(text));
  check_error(etcd::read_token(text));
  check_text(etcd::read_error(500, text).message);
  if (auto bytes = from_base64(text)) require(base64(*bytes) == text, "one text for the bytes");

  Content content({{"n1", {*Cidr::parse("10.0.1.0/24")}, {}}, *Cidr::parse("fd6d:6573:6800::/96")});
  Snapshot snapshot;
  if (range) snapshot.entries = std::move(range->entries);
  content.load(std::move(snapshot));
  if (auto catalog = content.build()) check_catalog(content, *catalog);

  // The same bytes as a stream, in pieces of a size that they choose.
  const std::size_t piece = size == 0 ? 1 : 1 + data[0] % 64;
  etcd::LineReader lines(1u << 20);
  etcd::BatchBuilder batches;
  for (std::size_t at = 0; at < size; at += piece) {
    if (!lines.feed(text.substr(at, piece))) break;
    while (auto line = lines.next()) {
      auto answer = etcd::read_watch(*line);
      check_error(answer);
      if (!answer || !batches.add(std::move(*answer))) return 0;
      Revision last = 0;
      for (auto& batch : batches.take()) {
        require(batch.revision > last && !batch.changes.empty(), "revisions rise");
        last = batch.revision;
        content.apply(std::move(batch));
      }
      check_catalog(content, *content.build());
    }
  }
  // As lines of key, blank, value: what no answer around them hinders.
  Batch batch{1, {}};
  std::size_t start = 0;
  while (start < size && batch.changes.size() < 64) {
    auto end = text.find('\n', start);
    if (end == std::string_view::npos) end = size;
    const auto line = text.substr(start, end - start);
    const auto blank = line.find(' ');
    Change change;
    change.kv.key = line.substr(0, blank);
    change.kv.created = change.kv.modified = static_cast<Revision>(batch.changes.size() + 1);
    if (blank == std::string_view::npos)
      change.deleted = true;
    else
      change.kv.value = line.substr(blank + 1);
    batch.changes.push_back(std::move(change));
    start = end + 1;
  }
  content.apply(std::move(batch));
  check_catalog(content, *content.build());
  return 0;
}
