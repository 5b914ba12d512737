// SPDX-License-Identifier: Apache-2.0
#include "agent/dns/responder.h"

#include "agent/dns/limits.h"

namespace mesh::dns {

Verdict Responder::handle(std::span<const std::uint8_t> wire, bool udp) {
  auto query = read_query(wire);
  if (!query) {
    count(counters_.malformed);
    if (query.error().response.empty()) return Drop{};
    return std::move(query.error().response);
  }
  const auto zone = zone_.load();
  // Before the first catalog nothing is known, and "no such name" would be a lie that is kept.
  auto reply = zone ? zone->answer(query->question, turn_++) : std::nullopt;
  if (!reply) return Forward{};
  count(counters_.answered);
  if (reply->rcode == Rcode::NxDomain || reply->answers.empty()) count(counters_.negative);
  auto out = write_reply(*query, *reply, udp ? udp_limit(*query) : kMaxMessage);
  if (out.size() >= kHeader && (out[2] & 0x02) != 0) count(counters_.truncated);
  if (out.empty()) return Drop{};
  return out;
}

std::vector<std::uint8_t> Responder::fail(std::span<const std::uint8_t> wire, Rcode rcode) const {
  auto query = read_query(wire);
  if (!query) return std::move(query.error().response);
  Reply reply;
  reply.rcode = rcode;
  reply.authoritative = false;
  return write_reply(*query, reply, kPlainUdp);
}

}  // namespace mesh::dns
