// SPDX-License-Identifier: Apache-2.0
// Config entries out of the store's values. Whatever cannot be read makes nothing more open.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "agent/config/chain.h"
#include "agent/config/entries.h"

namespace mesh::store {

struct ConfigValues {
  std::shared_ptr<const config::Entries> entries;
  std::map<std::string, std::string> refused;  // kind/name -> why
};

// `texts`: kind/name -> JSON as `config write` takes it. `local`: what this node's own files say,
// where the store says nothing. `before`: the entries that were in force; where routing makes no
// sense as a whole, it stays as it was there.
// A service-intentions entry that cannot be read denies everybody its destination; any other is
// left out.
ConfigValues read_config_values(const std::map<std::string, std::string>& texts,
                                const config::Entries& local, const config::Entries& before,
                                const config::ProtocolOf& protocol_of);

}  // namespace mesh::store
