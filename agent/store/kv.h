// SPDX-License-Identifier: Apache-2.0
// The model of every store: keys with values at revisions. Knows nothing of services or of etcd.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mesh::store {

// What is read is bounded; what is beyond is left out, counted and listed with a reason.
inline constexpr std::size_t kMaxKeys = 200'000;
inline constexpr std::size_t kMaxKeyBytes = 512;  // without the prefix
inline constexpr std::size_t kMaxValueBytes = 64 * 1024;
inline constexpr std::size_t kMaxTotalBytes = 128 * 1024 * 1024;  // of values

using Revision = std::int64_t;
using LeaseId = std::int64_t;  // 0: none

// Keys have no prefix here: an engine adds it and takes it away.
struct KeyValue {
  std::string key;
  std::string value;
  Revision created = 0;   // when the key came to be; who was first has the smaller one
  Revision modified = 0;  // of this value
  LeaseId lease = 0;
  bool too_large = false;  // the value is over a limit and was not read
};

struct Change {
  KeyValue kv;  // a deletion has only key and modified
  bool deleted = false;
};

// All that one revision changed: applied as a whole.
struct Batch {
  Revision revision = 0;
  std::vector<Change> changes;
};

struct Snapshot {
  Revision revision = 0;
  // Sorted by key, but what an engine was told to read first comes first. When there are more keys
  // than may be, one more than that.
  std::vector<KeyValue> entries;
  // Another history than what was seen before (a cluster restored from a backup): revisions do not
  // compare with earlier ones.
  bool other_history = false;
  bool first_cut = false;  // there were too many even of what is read first
};

// A key must have been changed last at this revision; 0: it must not exist.
struct Condition {
  std::string key;
  Revision modified = 0;
};

// No key from `from` to before `end` was changed after this revision. A key that was deleted is not
// seen: who deletes must change another one of them.
struct Unchanged {
  std::string from;
  std::string end;
  Revision since = 0;
};

struct Put {
  std::string key;
  std::string value;
  LeaseId lease = 0;
};

// Nothing of it happens unless all conditions hold. With one condition: compare and swap.
struct Transaction {
  static constexpr std::size_t kMaxOperations = 128;  // etcd's default, of each list

  std::vector<Condition> conditions;
  std::vector<Put> puts;
  std::vector<std::string> deletes;
  std::vector<Unchanged> unchanged = {};
};

struct Commit {
  bool done = false;  // false: a condition did not hold
  Revision revision = 0;
  std::vector<KeyValue> present;  // if not done: the keys of `conditions` that exist
};

// A key for a message: ASCII only, the rest escaped, at most 96 characters of it.
std::string key_text(std::string_view key);

}  // namespace mesh::store
