// SPDX-License-Identifier: Apache-2.0
// DNS messages on the wire (RFC 1035, EDNS by RFC 6891), by ldns. Knows nothing about services.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "agent/base/address.h"
#include "agent/base/result.h"

struct ldns_struct_pkt;

namespace mesh::dns {

enum class Rcode : std::uint8_t {
  NoError = 0,
  FormErr = 1,
  ServFail = 2,
  NxDomain = 3,
  NotImp = 4,
  Refused = 5,
};

// Of the types that somebody may ask for these are treated by name; all others are numbers.
inline constexpr std::uint16_t kTypeA = 1, kTypeSoa = 6, kTypeAaaa = 28, kTypeSrv = 33,
                               kTypeIxfr = 251, kTypeAxfr = 252, kTypeAny = 255;
inline constexpr std::uint16_t kClassIn = 1;

struct Question {
  std::vector<std::string> labels;  // lower case, without the root
  std::uint16_t type = 0;
  std::uint16_t klass = 0;
};

struct PacketDeleter {
  void operator()(ldns_struct_pkt* packet) const noexcept;
};

// A question that has been read.
struct Query {
  std::uint16_t id = 0;
  bool recursion_desired = false;
  bool edns = false;
  std::uint8_t edns_version = 0;
  std::uint16_t udp_size = 0;  // what the client takes by UDP; at least 512
  Question question;
  std::unique_ptr<ldns_struct_pkt, PacketDeleter> packet;  // the name in its own spelling
};

// The answer to something that is no question, or a message that can only be dropped.
struct Unreadable {
  std::vector<std::uint8_t> response;  // empty: drop it
  std::string_view why;
};

// Reads one message. Answers, messages of other operations and what cannot be read are Unreadable.
// An answer to an answer is never made: two servers would talk for ever.
tl::expected<Query, Unreadable> read_query(std::span<const std::uint8_t> wire);

struct Srv {
  std::uint16_t priority = 0;
  std::uint16_t weight = 0;
  std::uint16_t port = 0;
  std::string target;  // without the final dot
};

struct Record {
  std::string owner;  // empty: the name that was asked for
  std::uint32_t ttl = 0;
  std::variant<Address, Srv> data;
};

struct Reply {
  Rcode rcode = Rcode::NoError;
  bool authoritative = true;
  std::vector<Record> answers;
  std::vector<Record> additional;
  std::string soa_of;  // not empty: the SOA of this zone goes with it (negative answers, RFC 2308)
  bool soa_is_answer = false;
};

// At most `limit` bytes: first the additional records go, then answers with the TC bit set. To an
// EDNS version that we do not speak the answer is BADVERS, whatever the reply (RFC 6891 6.1.3).
std::vector<std::uint8_t> write_reply(const Query& query, const Reply& reply, std::size_t limit);

// The bytes that a UDP answer to this client may have.
std::size_t udp_limit(const Query& query);

// What a forwarder looks at without reading the rest. All need at least kHeader bytes.
inline constexpr std::size_t kHeader = 12;
std::uint16_t id_of(std::span<const std::uint8_t> wire);
void set_id(std::span<std::uint8_t> wire, std::uint16_t id);
bool is_response(std::span<const std::uint8_t> wire);
// An error without a question: some servers answer so what they cannot read.
bool is_bare_error(std::span<const std::uint8_t> wire);
// Both ask the same: the question sections are equal, letter case included.
bool same_question(std::span<const std::uint8_t> a, std::span<const std::uint8_t> b);

}  // namespace mesh::dns
