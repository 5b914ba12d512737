// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/kernel_report.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <memory>
#include <vector>

#include "agent/base/netns.h"
#include "agent/base/sock_diag.h"

namespace mesh::admin {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostStat = 64 * 1024;  // some 20 lines today

tl::unexpected<Error> gone() { return fail("its network namespace is no pod's any more"); }
tl::unexpected<Error> late() { return fail("not asked: the others took the time there is"); }

// Of the namespace this thread is in: "self" would be that of the process.
Result<std::optional<std::string>> read_tls_stat() {
  const UniqueFd fd(::open("/proc/thread-self/net/tls_stat", O_RDONLY | O_CLOEXEC));
  if (!fd && errno == ENOENT) return std::nullopt;
  if (!fd) return fail_errno(errno, "open tls_stat");
  std::string text;
  std::array<char, 4096> chunk;
  while (text.size() < kMostStat) {
    const ssize_t n = ::read(fd.get(), chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read tls_stat");
    if (n == 0) break;
    text.append(chunk.data(), static_cast<std::size_t>(n));
  }
  return text;
}

json to_json(const UlpInfo& ulp) {
  json all = {{"name", ulp.name}};
  if (ulp.version) all["version"] = tls_version_text(*ulp.version);
  if (ulp.cipher) all["cipher"] = tls_cipher_text(*ulp.cipher);
  if (ulp.tx) all["tx"] = tls_config_text(*ulp.tx);
  if (ulp.rx) all["rx"] = tls_config_text(*ulp.rx);
  return all;
}

}  // namespace

json parse_tls_stat(std::string_view text) {
  json all;
  while (!text.empty()) {
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const auto name = line.substr(0, line.find_first_of(" \t"));
    const auto number =
        line.substr(std::min(line.find_first_not_of(" \t", name.size()), line.size()));
    std::uint64_t value = 0;
    const auto [end, code] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (code == std::errc() && end == number.data() + number.size()) all[std::string(name)] = value;
  }
  return all;
}

void KernelReport::ask(const capture::NetnsDirectory& directory, std::span<const LegSocket> legs,
                       std::chrono::milliseconds limit) {
  const auto end = Clock::now() + limit;
  std::map<std::uint64_t, std::shared_ptr<const capture::NetnsHandle>> handles;
  if (const auto snapshot = directory.snapshot())
    for (const auto& [address, handle] : *snapshot) handles.emplace(handle->cookie, handle);
  std::map<std::uint64_t, std::vector<TcpTuple>> tuples;
  for (const auto& leg : legs) tuples[leg.netns].push_back(leg.tuple);
  for (const auto& [cookie, sockets] : tuples) {
    const auto all = [&](const Error& why) {
      for (const auto& socket : sockets)
        legs_.insert_or_assign({cookie, socket}, tl::unexpected(why));
    };
    const auto handle = handles.find(cookie);
    if (handle == handles.end() || Clock::now() >= end) {
      const auto why = handle == handles.end() ? gone() : late();
      stats_.insert_or_assign(cookie, why);
      all(why.value());
      continue;
    }
    std::optional<SockDiag> diag;
    std::optional<Result<std::optional<std::string>>> stat;
    const auto inside = in_netns(handle->second->fd.get(), [&]() -> Status {
      stat = read_tls_stat();
      auto made = SockDiag::open_here();
      if (!made) return tl::unexpected(std::move(made).error());
      diag.emplace(std::move(*made));
      return {};
    });
    if (stat)
      stats_.insert_or_assign(cookie, std::move(*stat));
    else
      stats_.insert_or_assign(cookie, tl::unexpected(inside.error()));
    if (!inside) {
      all(inside.error());
      continue;
    }
    for (std::size_t at = 0; at < sockets.size(); at += SockDiag::kBatch) {
      const auto batch =
          std::span(sockets).subspan(at).first(std::min(SockDiag::kBatch, sockets.size() - at));
      // Who has come as far as this asks once, however long the thread had to wait for a processor.
      if (at != 0 && Clock::now() >= end) {
        for (const auto& socket : batch) legs_.insert_or_assign({cookie, socket}, late());
        continue;
      }
      auto answers = diag->ulps(batch);
      for (std::size_t i = 0; i < batch.size(); ++i)
        legs_.insert_or_assign({cookie, batch[i]}, std::move(answers[i]));
    }
  }
}

void KernelReport::put(const LegSocket& leg, json& into) const {
  const auto found = legs_.find(leg);
  if (found == legs_.end())
    into["ulp_unknown"] = "not asked";
  else if (!found->second)
    into["ulp_unknown"] = found->second.error().what;
  else
    into["ulp"] = *found->second ? to_json(**found->second) : json();
}

json KernelReport::namespaces() const {
  json all = json::object();
  for (const auto& [cookie, stat] : stats_) {
    json one = json::object();
    if (!stat)
      one["tls_stat_unknown"] = stat.error().what;
    else if (*stat)
      one["tls_stat"] = parse_tls_stat(**stat);
    all[std::to_string(cookie)] = std::move(one);
  }
  return all;
}

}  // namespace mesh::admin
