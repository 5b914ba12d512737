// SPDX-License-Identifier: Apache-2.0
// Any bytes as a question and as a resolver's answer: what is said to them can be read again, fits
// where it has to, and is never an answer to an answer.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "agent/dns/limits.h"
#include "agent/dns/responder.h"

// clang-format off
// After the standard library: it defines words of the compiler's as macros.
#include <ldns/ldns.h>
// clang-format on

namespace {

using namespace mesh;

void require(bool condition, const char* what) {
  if (condition) return;
  (void)std::fprintf(stderr, "violated: %s\n", what);
  std::abort();
}

std::shared_ptr<const dns::Zone> zone() {
  catalog::Catalog::Services services;
  catalog::Service web;
  web.name = "a";
  web.vip4 = *Address::parse("240.0.0.1");
  web.vip6 = *Address::parse("fd00::1");
  for (unsigned i = 0; i < 200; ++i)
    web.instances.push_back({"i" + std::to_string(i),
                             Address::from_v4(0x0a000000u + i),
                             static_cast<std::uint16_t>(1 + i),
                             {},
                             catalog::InstanceDetails{.tags = {"t"}}});
  services.emplace("a", web);
  return std::make_shared<const dns::Zone>(
      dns::ZoneOptions{"c", "d"}, std::make_shared<const catalog::Catalog>(std::move(services)),
      [](const auto&, const auto&) { return true; });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static dns::Counters counters;
  static dns::Responder responder(counters);
  static const bool published = (responder.publish(zone()), true);
  (void)published;
  const std::span<const std::uint8_t> wire(data, size);
  for (const bool udp : {true, false}) {
    const auto verdict = responder.handle(wire, udp);
    const auto* answer = std::get_if<std::vector<std::uint8_t>>(&verdict);
    if (answer == nullptr) continue;
    require(size >= dns::kHeader && !dns::is_response(wire), "an answer to no question");
    require(answer->size() >= dns::kHeader && dns::is_response(*answer), "an answer");
    require(dns::id_of(*answer) == dns::id_of(wire), "the client's id");
    require(answer->size() <= (udp ? dns::kMaxUdp : dns::kMaxMessage), "size");
    ldns_pkt* packet = nullptr;
    require(ldns_wire2pkt(&packet, answer->data(), answer->size()) == LDNS_STATUS_OK, "readable");
    ldns_pkt_free(packet);
  }
  (void)responder.fail(wire, dns::Rcode::ServFail);
  const auto half = size / 2;
  (void)dns::same_question(wire.subspan(0, half), wire.subspan(half));
  if (size >= dns::kHeader) (void)dns::is_bare_error(wire);
  return 0;
}
