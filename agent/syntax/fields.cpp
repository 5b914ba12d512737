// SPDX-License-Identifier: Apache-2.0
// Keys of an object: their spellings, the ones that nobody knows, and what those may have meant.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "agent/base/ascii.h"
#include "agent/syntax/decode.h"

namespace mesh::syntax {
namespace {

using ascii::is_digit;
using ascii::is_lower;
using ascii::is_upper;
using ascii::to_lower;

bool same_letters(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return to_lower(x) == to_lower(y);
         });
}

// A word begins at `i`: "TLSMinVersion" has three, "ConnectTimeoutMs" as well.
bool begins_word(std::string_view camel, std::size_t i) {
  if (i == 0 || !is_upper(camel[i])) return false;
  const char before = camel[i - 1];
  return is_lower(before) || is_digit(before) || (i + 1 < camel.size() && is_lower(camel[i + 1]));
}

bool is_snake_of(std::string_view camel, std::string_view written) {
  std::size_t at = 0;
  for (std::size_t i = 0; i < camel.size(); ++i) {
    if (begins_word(camel, i) && (at == written.size() || written[at++] != '_')) return false;
    if (at == written.size() || to_lower(written[at++]) != to_lower(camel[i])) return false;
  }
  return at == written.size();
}

// Without what the spellings of one key differ in.
std::string plain(std::string_view key) {
  std::string out;
  for (char c : key.substr(0, 64))
    if (c != '_' && c != '-') out += to_lower(c);
  return out;
}

// How many letters must be put in, taken out, changed or swapped with their neighbour.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = a[i - 1] == b[j - 1];
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

}  // namespace

bool same_key(std::string_view key, std::string_view written) {
  return same_letters(key, written) || is_snake_of(key, written);
}

const Fields::Slot* Fields::slot(std::string_view key) const {
  auto it = std::find_if(slots_.begin(), slots_.end(),
                         [&](const Slot& known) { return known.key == key; });
  return it == slots_.end() ? nullptr : &*it;
}

const Member* Fields::found(std::string_view key) const {
  const Slot* known = slot(key);
  return known == nullptr ? nullptr : known->member;
}

const Member* Fields::find(std::string_view key, Aliases aliases, bool hidden) {
  if (const Slot* known = slot(key)) return known->member;
  const Member* first = nullptr;
  for (std::size_t i = 0; i < object_.size(); ++i) {
    const Member& member = object_[i];
    if (taken_[i] || !(same_key(key, member.key) ||
                       std::any_of(aliases.begin(), aliases.end(), [&](std::string_view alias) {
                         return same_letters(alias, member.key);
                       })))
      continue;
    taken_[i] = true;
    if (first == nullptr)
      first = &member;
    else
      (void)decoder_.given_twice(member, first->key_at, path_ / member.key);
  }
  slots_.push_back({key, first, hidden});
  return first;
}

bool Fields::given(std::string_view key, Aliases aliases) {
  const Member* member = find(key, aliases);
  return member != nullptr && !member->value.is_null();
}

const Value* Fields::value(std::string_view key, Aliases aliases) {
  const Member* member = find(key, aliases);
  return member == nullptr ? nullptr : &member->value;
}

void Fields::ignore(std::string_view key, Aliases aliases) { (void)find(key, aliases, true); }

void Fields::no_effect(std::string_view key, std::string_view why, Aliases aliases) {
  const Member* member = find(key, aliases, true);
  if (member != nullptr && !is_zero(member->value)) warn(key, std::string(why));
}

void Fields::refuse(std::string_view key, std::string_view why, Aliases aliases) {
  const Member* member = find(key, aliases, true);
  if (member != nullptr && !is_zero(member->value))
    decoder_.error(member->key_at, path(key), std::string(why));
}

void Fields::ignore_server_keys() {
  for (std::string_view key : {"CreateIndex", "ModifyIndex", "Hash"}) ignore(key);
}

void Fields::error(std::string_view key, std::string what) {
  decoder_.error(at(key), path(key), std::move(what));
}

void Fields::error(std::string what) { decoder_.error(at_, path_.to_string(), std::move(what)); }

void Fields::warn(std::string_view key, std::string what) {
  decoder_.warn(at(key), path(key), std::move(what));
}

void Fields::wrong(std::string_view key, std::string_view expected) {
  const Member* member = found(key);
  if (member == nullptr)
    missing(key);
  else
    decoder_.wrong(member->value, path_ / member->key, expected);
}

void Fields::missing(std::string_view key) {
  decoder_.error(at_, path_.to_string(), fmt::format("'{}' is required", key));
}

Position Fields::at(std::string_view key) const {
  const Member* member = found(key);
  return member == nullptr ? at_ : member->value.at;
}

std::string Fields::written(std::string_view key) const {
  const Member* member = found(key);
  return member == nullptr ? std::string(key) : member->key;
}

std::string Fields::path(std::string_view key) const {
  const std::string name = written(key);
  return (path_ / name).to_string();
}

std::string Fields::hint(std::string_view written) const {
  const std::string wanted = plain(written);
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(1, wanted.size() / 3) + 1;
  std::string all;
  std::size_t shown = 0;
  for (const Slot& known : slots_) {
    if (known.hidden) continue;
    const std::size_t far = distance(wanted, plain(known.key));
    if (far < best_distance) {
      best_distance = far;
      best = known.key;
    }
    ++shown;
    all += fmt::format("{}{}", all.empty() ? "" : ", ", known.key);
  }
  if (!best.empty()) return fmt::format("unknown key: did you mean {}?", best);
  constexpr std::size_t kListed = 12;
  if (shown == 0 || shown > kListed) return "unknown key";
  return fmt::format("unknown key: expected {}{}", shown == 1 ? "" : "one of ", all);
}

void Fields::finish() {
  for (std::size_t i = 0; i < object_.size(); ++i) {
    if (taken_[i]) continue;
    // Beyond the bound errors are only counted, and a hint for each of a million keys takes long.
    const Member& member = object_[i];
    decoder_.error(member.key_at, (path_ / member.key).to_string(),
                   decoder_.errors_.full() ? std::string() : hint(member.key));
  }
}

}  // namespace mesh::syntax
