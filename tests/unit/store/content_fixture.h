// SPDX-License-Identifier: Apache-2.0
// A content, and what it makes of keys.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "agent/store/content.h"

namespace mesh::store {

class ContentTest : public ::testing::Test {
 protected:
  static Content::Options options() {
    return {{"n1", {*Cidr::parse("10.0.1.0/24")}, *Cidr::parse("fd6d:6573:6800::/96")},
            *Cidr::parse("fd6d:6573:6800::/96")};
  }

  static std::string instance(const std::string& service, const std::string& address,
                              const std::string& more = "") {
    return fmt::format(R"({{"service":{{"name":"{}","address":"{}","port":80{}}}}})", service,
                       address, more);
  }
  static std::string node(const std::string& name, const std::string& address,
                          const std::string& cidrs) {
    return fmt::format(R"({{"node":{{"name":"{}","address":"{}","cidrs":[{}]}}}})", name, address,
                       cidrs);
  }
  static KeyValue kv(std::string key, std::string value, Revision created) {
    return {std::move(key), std::move(value), created, created, 0, false};
  }

  void load(std::vector<KeyValue> entries, bool other_history = false) {
    std::sort(entries.begin(), entries.end(),
              [](const auto& a, const auto& b) { return a.key < b.key; });
    content_.load({revision_, std::move(entries), other_history});
  }
  void put(const std::string& key, const std::string& value, Revision created = 0) {
    ++revision_;
    KeyValue one = kv(key, value, created == 0 ? revision_ : created);
    one.modified = revision_;
    content_.apply({revision_, {{one, false}}});
  }
  void erase(const std::string& key) {
    ++revision_;
    content_.apply({revision_, {{kv(key, "", 0), true}}});
  }
  void give_vip(const std::string& service, const std::string& vip) {
    put("config/vip/" + service, fmt::format(R"({{"vip":"{}"}})", vip));
  }
  std::string reason(const std::string& key) {
    for (const auto& refusal : content_.refusals(1000))
      if (refusal.key == key) return refusal.reason;
    return {};
  }
  std::vector<std::string> addresses(const std::string& service) {
    std::vector<std::string> all;
    if (auto catalog = content_.build())
      if (const auto* found = catalog->find(service))
        for (const auto& one : found->instances) all.push_back(one.address.to_string());
    return all;
  }

  Content content_{options()};
  Revision revision_ = 100;
};

using Strings = std::vector<std::string>;

}  // namespace mesh::store
