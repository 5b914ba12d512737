// SPDX-License-Identifier: Apache-2.0
// What etcd's JSON gateway is asked and what it answers, as text. Pure functions on untrusted
// bytes: no sockets, no state but the stream reader's.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"
#include "agent/store/kv.h"

namespace mesh::store::etcd {

// Of every answer; tells one cluster, and one history of it, from another.
struct Header {
  std::uint64_t cluster = 0;
  std::uint64_t member = 0;
  Revision revision = 0;
  std::uint64_t term = 0;
};

struct RangeAnswer {
  Header header;
  std::vector<KeyValue> entries;  // full keys, with the prefix
  bool more = false;
};

struct TxnAnswer {
  Header header;
  bool succeeded = false;
  std::vector<KeyValue> present;
};

struct LeaseAnswer {
  Header header;
  LeaseId id = 0;
  std::chrono::seconds ttl{0};
};

struct WatchAnswer {
  Header header;
  bool created = false;
  bool canceled = false;
  bool fragment = false;  // more of the same answer follows
  std::string reason;     // of the cancellation
  Revision compacted = 0;
  std::vector<Change> changes;
};

// Of an answer that is an error; etcd says it in three shapes.
struct GatewayError {
  int code = 0;  // gRPC's
  std::string message;

  [[nodiscard]] bool wants_login() const;
  [[nodiscard]] bool lease_is_gone() const;
};

// The end of the range of all keys with this prefix.
std::string range_end(std::string_view prefix);

std::string range_request(std::string_view from, std::string_view end, std::size_t limit,
                          Revision at, bool keys_only);
// One key with the prefix that was changed last after this revision. The server looks at all of
// them.
std::string changed_after_request(std::string_view prefix, Revision revision);
// `prefix` goes before every key.
std::string txn_request(std::string_view prefix, const Transaction& transaction);
std::string watch_request(std::string_view prefix, Revision start);
std::string grant_request(std::chrono::seconds ttl);
std::string renew_request(LeaseId lease);
std::string login_request(std::string_view user, std::string_view password);

Result<RangeAnswer> read_range(std::string_view text);
Result<TxnAnswer> read_txn(std::string_view text);
Result<LeaseAnswer> read_grant(std::string_view text);
Result<LeaseAnswer> read_renewal(std::string_view text);
Result<std::string> read_token(std::string_view text);
// One line of the stream. An error that the server sends in it is a cancellation with its text.
Result<WatchAnswer> read_watch(std::string_view line);
GatewayError read_error(unsigned http_status, std::string_view text);

// Cuts a stream into lines, each up to a size.
class LineReader {
 public:
  explicit LineReader(std::size_t max_bytes) : max_bytes_(max_bytes) {}

  // False: a line is larger than allowed, and nothing that follows can be understood.
  [[nodiscard]] bool feed(std::string_view bytes);
  // The next whole line that is not empty.
  [[nodiscard]] std::optional<std::string> next();

 private:
  std::size_t max_bytes_;
  std::string pending_;
  std::size_t start_ = 0;    // of the first line in pending_
  std::size_t scanned_ = 0;  // no line ends before
};

// Puts fragments and answers together into whole revisions.
class BatchBuilder {
 public:
  static constexpr std::size_t kMaxChanges = 2 * kMaxKeys;

  // False: more is outstanding than may be, or revisions go backwards.
  [[nodiscard]] bool add(WatchAnswer answer);
  // Batches that are complete, in order.
  [[nodiscard]] std::vector<Batch> take();

 private:
  std::vector<Change> changes_;
  std::vector<Batch> ready_;
  Revision last_ = 0;
};

}  // namespace mesh::store::etcd
