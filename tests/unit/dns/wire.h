// SPDX-License-Identifier: Apache-2.0
// Questions as bytes, answers as text: written and read without the code under test.
#pragma once

#include <ldns/ldns.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mesh::dns::test {

using Bytes = std::vector<std::uint8_t>;

inline Bytes question(std::string_view name, std::uint16_t type, std::uint16_t edns_size = 0,
                      std::uint16_t id = 0x1234, std::uint8_t edns_version = 0) {
  Bytes wire{static_cast<std::uint8_t>(id >> 8),
             static_cast<std::uint8_t>(id),
             0x01,
             0,
             0,
             1,
             0,
             0,
             0,
             0,
             0,
             static_cast<std::uint8_t>(edns_size != 0 ? 1 : 0)};
  while (!name.empty()) {
    const auto dot = std::min(name.find('.'), name.size());
    wire.push_back(static_cast<std::uint8_t>(dot));
    wire.insert(wire.end(), name.begin(), name.begin() + static_cast<std::ptrdiff_t>(dot));
    name.remove_prefix(std::min(dot + 1, name.size()));
  }
  for (const int byte : {0, type >> 8, type & 255, 0, 1})
    wire.push_back(static_cast<std::uint8_t>(byte));
  if (edns_size != 0)
    for (const int byte :
         {0, 0, 41, edns_size >> 8, edns_size & 255, 0, int{edns_version}, 0, 0, 0, 0})
      wire.push_back(static_cast<std::uint8_t>(byte));
  return wire;
}

struct Text {
  int rcode = -1;  // with the upper bits that EDNS adds; -1: cannot be read
  std::uint16_t id = 0;
  bool aa = false, tc = false, edns = false;
  std::string asked;
  std::vector<std::string> answers, authority, additional;  // "owner ttl IN type data"
};

inline std::vector<std::string> lines(const ldns_rr_list* list) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < ldns_rr_list_rr_count(list); ++i) {
    std::unique_ptr<char, decltype(&std::free)> text(ldns_rr2str(ldns_rr_list_rr(list, i)),
                                                     std::free);
    std::string line(text.get());
    for (char& c : line)
      if (c == '\t') c = ' ';
    if (!line.empty() && line.back() == '\n') line.pop_back();
    out.push_back(std::move(line));
  }
  return out;
}

inline Text read(std::span<const std::uint8_t> wire) {
  Text text;
  ldns_pkt* raw = nullptr;
  if (ldns_wire2pkt(&raw, wire.data(), wire.size()) != LDNS_STATUS_OK) return text;
  std::unique_ptr<ldns_pkt, decltype(&ldns_pkt_free)> packet(raw, ldns_pkt_free);
  if (!ldns_pkt_qr(raw)) return text;
  text.rcode = ldns_pkt_get_rcode(raw) | ldns_pkt_edns_extended_rcode(raw) << 4;
  text.id = ldns_pkt_id(raw);
  text.aa = ldns_pkt_aa(raw);
  text.tc = ldns_pkt_tc(raw);
  text.edns = ldns_pkt_edns(raw);
  const auto asked = lines(ldns_pkt_question(raw));
  text.asked = asked.empty() ? "" : asked.front();
  text.answers = lines(ldns_pkt_answer(raw));
  text.authority = lines(ldns_pkt_authority(raw));
  text.additional = lines(ldns_pkt_additional(raw));
  return text;
}

}  // namespace mesh::dns::test
