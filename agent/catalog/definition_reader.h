// SPDX-License-Identifier: Apache-2.0
// What the readers of definitions share: the rules for text, addresses and meta.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "agent/base/address.h"
#include "agent/syntax/decode.h"

namespace mesh::catalog {

inline constexpr std::string_view kNameRule =
    "a name of 1 to 63 characters, a letter or digit first, then letters, digits, '-', '_' or '.'";

// [a-zA-Z0-9][-_.a-zA-Z0-9]*, 1 to 63 characters.
bool is_name(std::string_view name);
// A control character of ASCII is in it.
bool has_control(std::string_view text);
// Of a workload or a node: not loopback, unspecified, multicast or in 240.0.0.0/4.
bool is_unicast(const Address& address);

// The object of strings that Consul calls Meta. `on_mesh` is called for keys that begin with
// "mesh-", with the value as text.
void read_meta(syntax::Fields& fields, std::map<std::string, std::string>& out,
               const std::function<void(const syntax::Member&, const syntax::Path& path,
                                        const std::string& text)>& on_mesh);

// What Consul Enterprise places a definition in: only the one that everybody has.
void only_default_tenancy(syntax::Fields& fields);

}  // namespace mesh::catalog
