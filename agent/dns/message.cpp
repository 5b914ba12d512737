// SPDX-License-Identifier: Apache-2.0
#include "agent/dns/message.h"

#include <ldns/ldns.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "agent/base/ascii.h"
#include "agent/dns/limits.h"

namespace mesh::dns {

void PacketDeleter::operator()(ldns_struct_pkt* packet) const noexcept { ldns_pkt_free(packet); }

namespace {

using Packet = std::unique_ptr<ldns_pkt, PacketDeleter>;

struct RrDeleter {
  void operator()(ldns_rr* rr) const noexcept { ldns_rr_free(rr); }
};
using Rr = std::unique_ptr<ldns_rr, RrDeleter>;

constexpr std::uint8_t kResponseBit = 0x80;
constexpr std::uint8_t kOpcodeMask = 0x78;
constexpr std::uint8_t kBadVersion = 16 >> 4;  // the upper bits of BADVERS

// The header turned into an answer without a body: for what could not be read.
std::vector<std::uint8_t> bare_reply(std::span<const std::uint8_t> wire, Rcode rcode) {
  std::vector<std::uint8_t> out(kHeader, 0);
  out[0] = wire[0];
  out[1] = wire[1];
  out[2] = static_cast<std::uint8_t>(kResponseBit | (wire[2] & (kOpcodeMask | 0x01)));
  out[3] = static_cast<std::uint8_t>(rcode);
  return out;
}

std::uint16_t read16(std::span<const std::uint8_t> wire, std::size_t at) {
  return static_cast<std::uint16_t>(wire[at] << 8 | wire[at + 1]);
}

std::vector<std::string> labels_of(const ldns_rdf* name) {
  std::vector<std::string> labels;
  const auto* bytes = static_cast<const std::uint8_t*>(ldns_rdf_data(name));
  const std::size_t size = ldns_rdf_size(name);
  for (std::size_t at = 0; at < size && bytes[at] != 0;) {
    const std::size_t length = bytes[at];
    if (length > LDNS_MAX_LABELLEN || at + 1 + length > size) return {};
    labels.push_back(ascii::lower_case({reinterpret_cast<const char*>(bytes + at + 1), length}));
    at += 1 + length;
  }
  return labels;
}

ldns_rdf* name_rdf(const std::string& name) { return ldns_dname_new_frm_str(name.c_str()); }

ldns_rdf* address_rdf(const Address& address) {
  if (address.is_v4())
    return ldns_rdf_new_frm_data(LDNS_RDF_TYPE_A, 4, address.bytes().data() + 12);
  return ldns_rdf_new_frm_data(LDNS_RDF_TYPE_AAAA, address.bytes().size(), address.bytes().data());
}

// Null when memory or a name fails; a record that cannot be made is left out by nobody but ends the
// whole answer as SERVFAIL.
Rr make_rr(const ldns_rdf* asked, const Record& record) {
  Rr rr(ldns_rr_new());
  if (!rr) return nullptr;
  ldns_rdf* owner = record.owner.empty() ? ldns_rdf_clone(asked) : name_rdf(record.owner);
  if (owner == nullptr) return nullptr;
  ldns_rr_set_owner(rr.get(), owner);
  ldns_rr_set_ttl(rr.get(), record.ttl);
  ldns_rr_set_class(rr.get(), LDNS_RR_CLASS_IN);
  const auto push = [&](ldns_rdf* rdf) {
    return rdf != nullptr && ldns_rr_push_rdf(rr.get(), rdf);
  };
  if (const auto* address = std::get_if<Address>(&record.data)) {
    ldns_rr_set_type(rr.get(), address->is_v4() ? LDNS_RR_TYPE_A : LDNS_RR_TYPE_AAAA);
    return push(address_rdf(*address)) ? std::move(rr) : nullptr;
  }
  const auto& srv = std::get<Srv>(record.data);
  ldns_rr_set_type(rr.get(), LDNS_RR_TYPE_SRV);
  const bool pushed = push(ldns_native2rdf_int16(LDNS_RDF_TYPE_INT16, srv.priority)) &&
                      push(ldns_native2rdf_int16(LDNS_RDF_TYPE_INT16, srv.weight)) &&
                      push(ldns_native2rdf_int16(LDNS_RDF_TYPE_INT16, srv.port)) &&
                      push(name_rdf(srv.target));
  return pushed ? std::move(rr) : nullptr;
}

// Nobody transfers this zone, so its times mean nothing; the last one is how long an absence may be
// believed.
Rr make_soa(const std::string& zone) {
  Rr rr(ldns_rr_new());
  if (!rr) return nullptr;
  ldns_rdf* owner = name_rdf(zone);
  if (owner == nullptr) return nullptr;
  ldns_rr_set_owner(rr.get(), owner);
  ldns_rr_set_ttl(rr.get(), 0);
  ldns_rr_set_class(rr.get(), LDNS_RR_CLASS_IN);
  ldns_rr_set_type(rr.get(), LDNS_RR_TYPE_SOA);
  const auto push = [&](ldns_rdf* rdf) {
    return rdf != nullptr && ldns_rr_push_rdf(rr.get(), rdf);
  };
  bool pushed = push(name_rdf("ns." + zone)) && push(name_rdf("hostmaster." + zone));
  for (const std::uint32_t value : {1u, 3600u, 600u, 86400u, 0u})
    pushed = pushed && push(ldns_native2rdf_int32(LDNS_RDF_TYPE_INT32, value));
  return pushed ? std::move(rr) : nullptr;
}

bool push(ldns_pkt* packet, ldns_pkt_section section, Rr rr) {
  if (!rr || !ldns_pkt_push_rr(packet, section, rr.get())) return false;
  (void)rr.release();  // the packet's now
  return true;
}

std::vector<std::uint8_t> to_wire(const ldns_pkt* packet) {
  std::uint8_t* bytes = nullptr;
  std::size_t size = 0;
  if (ldns_pkt2wire(&bytes, packet, &size) != LDNS_STATUS_OK) return {};
  std::vector<std::uint8_t> out(bytes, bytes + size);
  std::free(bytes);
  return out;
}

// Empty when something failed.
std::vector<std::uint8_t> build(const Query& query, const Reply& reply, std::size_t answers,
                                bool with_additional) {
  Packet packet(ldns_pkt_new());
  if (!packet) return {};
  ldns_pkt* p = packet.get();
  ldns_pkt_set_id(p, query.id);
  ldns_pkt_set_qr(p, true);
  ldns_pkt_set_aa(p, reply.authoritative);
  ldns_pkt_set_rd(p, query.recursion_desired);
  ldns_pkt_set_ra(p, true);  // the rest of the world is forwarded
  ldns_pkt_set_tc(p, answers < reply.answers.size());
  ldns_pkt_set_rcode(p, static_cast<std::uint8_t>(reply.rcode));
  if (query.edns) ldns_pkt_set_edns_udp_size(p, kMaxUdp);
  if (query.edns_version != 0) ldns_pkt_set_edns_extended_rcode(p, kBadVersion);
  const ldns_rr* asked = ldns_rr_list_rr(ldns_pkt_question(query.packet.get()), 0);
  Rr question(ldns_rr_clone(asked));
  if (!push(p, LDNS_SECTION_QUESTION, std::move(question))) return {};
  const ldns_rdf* name = ldns_rr_owner(asked);
  for (std::size_t i = 0; i < answers; ++i)
    if (!push(p, LDNS_SECTION_ANSWER, make_rr(name, reply.answers[i]))) return {};
  if (!reply.soa_of.empty() &&
      !push(p, reply.soa_is_answer ? LDNS_SECTION_ANSWER : LDNS_SECTION_AUTHORITY,
            make_soa(reply.soa_of)))
    return {};
  if (with_additional)
    for (const auto& record : reply.additional)
      if (!push(p, LDNS_SECTION_ADDITIONAL, make_rr(name, record))) return {};
  return to_wire(p);
}

}  // namespace

std::uint16_t id_of(std::span<const std::uint8_t> wire) { return read16(wire, 0); }

void set_id(std::span<std::uint8_t> wire, std::uint16_t id) {
  wire[0] = static_cast<std::uint8_t>(id >> 8);
  wire[1] = static_cast<std::uint8_t>(id);
}

bool is_response(std::span<const std::uint8_t> wire) { return (wire[2] & kResponseBit) != 0; }

bool is_bare_error(std::span<const std::uint8_t> wire) {
  return read16(wire, 4) == 0 && (wire[3] & 0x0f) != 0;
}

namespace {

// The bytes of the only question; empty if there is not exactly one, or it is not whole.
std::span<const std::uint8_t> question_bytes(std::span<const std::uint8_t> wire) {
  if (wire.size() < kHeader || read16(wire, 4) != 1) return {};
  std::size_t at = kHeader;
  while (at < wire.size() && wire[at] != 0) {
    if (wire[at] > LDNS_MAX_LABELLEN) return {};  // nothing to point at stands before it
    at += 1u + wire[at];
  }
  const std::size_t end = at + 1 + 4;
  return end <= wire.size() ? wire.subspan(kHeader, end - kHeader)
                            : std::span<const std::uint8_t>{};
}

}  // namespace

bool same_question(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b) {
  const auto left = question_bytes(a);
  const auto right = question_bytes(b);
  return !left.empty() && std::equal(left.begin(), left.end(), right.begin(), right.end());
}

tl::expected<Query, Unreadable> read_query(std::span<const std::uint8_t> wire) {
  const auto drop = [](std::string_view why) { return tl::unexpected(Unreadable{{}, why}); };
  const auto refuse = [&](Rcode rcode, std::string_view why) {
    return tl::unexpected(Unreadable{bare_reply(wire, rcode), why});
  };
  if (wire.size() < kHeader) return drop("too short");
  if (wire.size() > kMaxQuery) return drop("too long");
  if (is_response(wire)) return drop("not a question");
  if ((wire[2] & kOpcodeMask) != 0) return refuse(Rcode::NotImp, "another operation");
  if (question_bytes(wire).empty()) return refuse(Rcode::FormErr, "not one question");
  ldns_pkt* raw = nullptr;
  const auto status = ldns_wire2pkt(&raw, wire.data(), wire.size());
  Packet packet(raw);
  if (status != LDNS_STATUS_OK || !packet || ldns_pkt_qdcount(raw) != 1)
    return refuse(Rcode::FormErr, "malformed");
  const ldns_rr* asked = ldns_rr_list_rr(ldns_pkt_question(raw), 0);
  Query query;
  query.id = ldns_pkt_id(raw);
  query.recursion_desired = ldns_pkt_rd(raw);
  query.edns = ldns_pkt_edns(raw);
  query.edns_version = query.edns ? ldns_pkt_edns_version(raw) : std::uint8_t{0};
  query.udp_size = query.edns ? std::max<std::uint16_t>(ldns_pkt_edns_udp_size(raw), kPlainUdp)
                              : std::uint16_t{kPlainUdp};
  query.question.labels = labels_of(ldns_rr_owner(asked));
  query.question.type = static_cast<std::uint16_t>(ldns_rr_get_type(asked));
  query.question.klass = static_cast<std::uint16_t>(ldns_rr_get_class(asked));
  query.packet = std::move(packet);
  return query;
}

std::size_t udp_limit(const Query& query) { return std::min<std::size_t>(query.udp_size, kMaxUdp); }

std::vector<std::uint8_t> write_reply(const Query& query, const Reply& reply, std::size_t limit) {
  if (query.edns_version != 0) return build(query, {}, 0, false);
  // No record is shorter than a pointer to its name, its fixed part and an IPv4 address.
  std::size_t answers = std::min(reply.answers.size(), limit / 16);
  auto wire = build(query, reply, answers, answers == reply.answers.size());
  if (wire.size() > limit) wire = build(query, reply, answers, false);
  // A handful of builds at most: each tries the share that the last one's size suggests.
  while (wire.size() > limit && answers > 0) {
    answers = std::min(answers - 1, answers * limit / wire.size());
    wire = build(query, reply, answers, false);
  }
  if (!wire.empty() && wire.size() <= limit) return wire;
  Reply failed;
  failed.rcode = Rcode::ServFail;
  failed.authoritative = false;
  return build(query, failed, 0, false);
}

}  // namespace mesh::dns
