// SPDX-License-Identifier: Apache-2.0
// How trees become the structs of entries.h: the rules that one entry keeps by itself. The name of
// an entry is known before its fields are read. Private to the readers.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "agent/config/entries.h"
#include "agent/syntax/decode.h"

namespace mesh::config {

// [a-zA-Z0-9][-_.a-zA-Z0-9]*, 1 to 63 characters.
bool is_service_name(std::string_view name);

// Of entries: what their kind has beyond Kind, Name, Meta, Namespace and Partition.
void read_fields(syntax::Fields& f, ServiceDefaults& out);
void read_fields(syntax::Fields& f, ProxyDefaults& out);
void read_fields(syntax::Fields& f, Mesh& out);
void read_fields(syntax::Fields& f, ServiceResolver& out);
void read_fields(syntax::Fields& f, ServiceSplitter& out);
void read_fields(syntax::Fields& f, ServiceRouter& out);
void read_fields(syntax::Fields& f, ServiceIntentions& out);

// --- rules that several kinds share

// Namespace and Partition: nothing or "default".
void own_tenancy(syntax::Fields& f);
void read_meta(syntax::Fields& f, StringMap& out);
// A name that is a service's, or empty.
void get_service(syntax::Fields& f, std::string_view key, std::string& out);
// Not below zero.
void get_timeout(syntax::Fields& f, std::string_view key, Duration& out);
// A warning if `key` holds something: it is valid, kept, and nothing acts on it yet.
void inert(syntax::Fields& f, std::initializer_list<std::string_view> keys, std::string_view why);

inline constexpr std::string_view kNoRequests =
    "has no effect: this agent does not look at single requests yet";
inline constexpr std::string_view kNotYet = "has no effect in this agent yet";
inline constexpr std::string_view kEnvoyOnly = "has no effect: there is no Envoy here";
inline constexpr std::string_view kNoGateways = "has no effect: there are no mesh gateways here";

struct Matcher {
  std::string_view key;
  MatchBy by;
};
// Exactly one of `matchers` has to be given.
void read_matcher(syntax::Fields& f, std::span<const Matcher> matchers, MatchBy& by,
                  std::string& value);
void read_path(syntax::Fields& f, HttpMatch& out);
void read_methods(syntax::Fields& f, std::vector<std::string>& out);
// An error if `pattern` is no regular expression of RE2's.
void check_regex(syntax::Fields& f, std::string_view key, const std::string& pattern);

void decode_fields(syntax::Fields& f, HeaderModifiers& out);

std::array<syntax::Word<Action>, 2> decode_words(Action);
std::array<syntax::Word<Protocol>, 4> decode_words(Protocol);
std::array<syntax::Word<MutualTlsMode>, 3> decode_words(MutualTlsMode);

}  // namespace mesh::config
