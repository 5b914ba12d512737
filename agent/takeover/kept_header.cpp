// SPDX-License-Identifier: Apache-2.0
#include "agent/takeover/kept_header.h"

#include "agent/takeover/channel.h"
#include "agent/takeover/wire_bytes.h"

namespace mesh::takeover {
namespace {

constexpr std::size_t kMaxVersion = 64;
constexpr std::size_t kMaxPath = 4096;

}  // namespace

std::vector<std::uint8_t> write_kept_header(const KeptHeader& header) {
  Writer out;
  out.number(kProtocol);
  out.number(static_cast<std::uint32_t>(header.common.abi));
  out.text(header.common.version.substr(0, kMaxVersion));
  out.text(header.common.pin_dir);
  out.number(header.common.maps);
  out.number(static_cast<std::uint64_t>(
      std::chrono::nanoseconds(header.deadline.time_since_epoch()).count()));
  out.number(header.connections);
  return out.take();
}

Result<KeptHeader> parse_kept_header(std::span<const std::uint8_t> bytes) {
  Reader in(bytes);
  const auto protocol = in.number<std::uint32_t>();
  if (!in.ok() || protocol != kProtocol) return fail("it is of protocol {}", protocol);
  KeptHeader header;
  header.common.abi = static_cast<int>(in.number_below<std::uint32_t>(1u << 31));
  header.common.version = in.text(kMaxVersion);
  header.common.pin_dir = in.text(kMaxPath);
  header.common.maps = in.number<std::uint32_t>();
  header.deadline = std::chrono::steady_clock::time_point(
      std::chrono::nanoseconds(in.number_below<std::uint64_t>(std::uint64_t{1} << 63)));
  header.connections = in.number<std::uint32_t>();
  if (!in.done()) return fail("its header is malformed");
  return header;
}

}  // namespace mesh::takeover
