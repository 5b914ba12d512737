// SPDX-License-Identifier: Apache-2.0
#include "agent/store/etcd_codec.h"

#include <fmt/format.h>

#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>

#include "agent/store/base64.h"

namespace mesh::store {

std::string key_text(std::string_view key) {
  constexpr std::size_t kMax = 96;
  std::string out;
  for (char c : key.substr(0, kMax)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f || byte == '\\')
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  if (key.size() > kMax) out += "...";
  return out;
}

namespace etcd {
namespace {

using nlohmann::json;

// Codes of gRPC that mean something here.
constexpr int kNotFound = 5;
constexpr int kUnauthenticated = 16;
constexpr int kUnknown = 2;

std::string text_of(const json& request) {
  return request.dump(-1, ' ', false, json::error_handler_t::replace);
}

const json* member(const json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  auto it = object.find(name);
  return it == object.end() ? nullptr : &*it;
}

// 64-bit integers are strings; small ones of other versions may be numbers. Left out is 0.
template <typename T>
bool read_number(const json& object, const char* name, T& out) {
  const json* value = member(object, name);
  out = 0;
  if (value == nullptr) return true;
  if (const auto* text = value->get_ptr<const std::string*>()) {
    const char* end = text->data() + text->size();
    auto [stop, code] = std::from_chars(text->data(), end, out);
    return code == std::errc{} && stop == end && !text->empty();
  }
  if (value->is_number_unsigned()) {
    const auto number = value->get<std::uint64_t>();
    out = static_cast<T>(number);
    return static_cast<std::uint64_t>(out) == number && out >= T{0};
  }
  if (value->is_number_integer()) {
    const auto number = value->get<std::int64_t>();
    out = static_cast<T>(number);
    return static_cast<std::int64_t>(out) == number;
  }
  return false;
}

bool read_flag(const json& object, const char* name, bool& out) {
  const json* value = member(object, name);
  out = false;
  if (value == nullptr) return true;
  if (!value->is_boolean()) return false;
  out = value->get<bool>();
  return true;
}

bool read_bytes(const json& object, const char* name, std::string& out) {
  const json* value = member(object, name);
  out.clear();
  if (value == nullptr) return true;
  const auto* text = value->get_ptr<const std::string*>();
  if (text == nullptr) return false;
  auto bytes = from_base64(*text);
  if (!bytes) return false;
  out = std::move(*bytes);
  return true;
}

bool read_header(const json& answer, Header& out) {
  const json* header = member(answer, "header");
  return header != nullptr && header->is_object() &&
         read_number(*header, "cluster_id", out.cluster) &&
         read_number(*header, "member_id", out.member) &&
         read_number(*header, "revision", out.revision) &&
         read_number(*header, "raft_term", out.term) && out.revision >= 0;
}

bool read_kv(const json& object, KeyValue& out) {
  if (!object.is_object() || !read_bytes(object, "key", out.key)) return false;
  if (!read_number(object, "create_revision", out.created) ||
      !read_number(object, "mod_revision", out.modified) ||
      !read_number(object, "lease", out.lease) || out.created < 0 || out.modified < 0)
    return false;
  const json* value = member(object, "value");
  const auto* text = value == nullptr ? nullptr : value->get_ptr<const std::string*>();
  // Not worth the memory: who reads it would refuse it.
  if (text != nullptr && text->size() / 4 * 3 > kMaxValueBytes + 3) {
    out.too_large = true;
    return true;
  }
  if (!read_bytes(object, "value", out.value)) return false;
  out.too_large = out.value.size() > kMaxValueBytes;
  if (out.too_large) out.value.clear();
  return true;
}

bool read_kvs(const json& object, std::vector<KeyValue>& out) {
  const json* kvs = member(object, "kvs");
  if (kvs == nullptr) return true;
  if (!kvs->is_array()) return false;
  out.reserve(out.size() + kvs->size());
  for (const auto& one : *kvs)
    if (!read_kv(one, out.emplace_back())) return false;
  return true;
}

tl::unexpected<Error> not_understood(std::string_view what, std::string_view text) {
  return fail("{}: an answer that is not etcd's: {}", what, key_text(text));
}

Result<json> parse(std::string_view what, std::string_view text) {
  auto answer = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object()) return not_understood(what, text);
  return answer;
}

}  // namespace

bool GatewayError::wants_login() const {
  return code == kUnauthenticated || message.find("invalid auth token") != std::string::npos ||
         message.find("revision of auth store is old") != std::string::npos ||
         message.find("user name is empty") != std::string::npos;
}

bool GatewayError::lease_is_gone() const {
  return code == kNotFound && message.find("requested lease not found") != std::string::npos;
}

std::string range_end(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (end.empty()) return std::string(1, '\0');  // to the last key there is
  end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

std::string range_request(std::string_view from, std::string_view end, std::size_t limit,
                          Revision at, bool keys_only) {
  json request{{"key", base64(from)}, {"limit", std::to_string(limit)}};
  if (!end.empty()) request["range_end"] = base64(end);
  if (at != 0) request["revision"] = std::to_string(at);
  if (keys_only) request["keys_only"] = true;
  return text_of(request);
}

std::string changed_after_request(std::string_view prefix, Revision revision) {
  return text_of({{"key", base64(prefix)},
                  {"range_end", base64(range_end(prefix))},
                  {"min_mod_revision", std::to_string(revision + 1)},
                  {"keys_only", true},
                  {"limit", "1"}});
}

std::string txn_request(std::string_view prefix, const Transaction& transaction) {
  const auto full = [&](const std::string& key) { return base64(std::string(prefix) + key); };
  json compare = json::array();
  json failure = json::array();
  for (const auto& condition : transaction.conditions) {
    // A key that does not exist has revision 0 here.
    compare.push_back({{"target", "MOD"},
                       {"result", "EQUAL"},
                       {"key", full(condition.key)},
                       {"mod_revision", std::to_string(condition.modified)}});
    failure.push_back({{"request_range", {{"key", full(condition.key)}}}});
  }
  for (const auto& range : transaction.unchanged)
    compare.push_back({{"target", "MOD"},
                       {"result", "LESS"},
                       {"key", full(range.from)},
                       {"range_end", full(range.end)},
                       {"mod_revision", std::to_string(range.since + 1)}});
  json success = json::array();
  for (const auto& put : transaction.puts) {
    json one{{"key", full(put.key)}, {"value", base64(put.value)}};
    if (put.lease != 0) one["lease"] = std::to_string(put.lease);
    success.push_back({{"request_put", std::move(one)}});
  }
  for (const auto& key : transaction.deletes)
    success.push_back({{"request_delete_range", {{"key", full(key)}}}});
  return text_of({{"compare", std::move(compare)},
                  {"success", std::move(success)},
                  {"failure", std::move(failure)}});
}

std::string watch_request(std::string_view prefix, Revision start) {
  return text_of({{"create_request",
                   {{"key", base64(prefix)},
                    {"range_end", base64(range_end(prefix))},
                    {"start_revision", std::to_string(start)},
                    {"progress_notify", true},
                    {"fragment", true}}}});
}

std::string grant_request(std::chrono::seconds ttl) {
  return text_of({{"TTL", std::to_string(ttl.count())}});
}

std::string renew_request(LeaseId lease) { return text_of({{"ID", std::to_string(lease)}}); }

std::string login_request(std::string_view user, std::string_view password) {
  return text_of({{"name", user}, {"password", password}});
}

Result<RangeAnswer> read_range(std::string_view text) {
  auto json = parse("range", text);
  if (!json) return tl::unexpected(std::move(json).error());
  RangeAnswer answer;
  if (!read_header(*json, answer.header) || !read_flag(*json, "more", answer.more) ||
      !read_kvs(*json, answer.entries))
    return not_understood("range", text);
  return answer;
}

Result<TxnAnswer> read_txn(std::string_view text) {
  auto json = parse("txn", text);
  if (!json) return tl::unexpected(std::move(json).error());
  TxnAnswer answer;
  if (!read_header(*json, answer.header) || !read_flag(*json, "succeeded", answer.succeeded))
    return not_understood("txn", text);
  if (const auto* responses = member(*json, "responses")) {
    if (!responses->is_array()) return not_understood("txn", text);
    for (const auto& one : *responses)
      if (const auto* range = member(one, "response_range"))
        if (!read_kvs(*range, answer.present)) return not_understood("txn", text);
  }
  return answer;
}

Result<LeaseAnswer> read_grant(std::string_view text) {
  auto json = parse("lease", text);
  if (!json) return tl::unexpected(std::move(json).error());
  LeaseAnswer answer;
  std::int64_t ttl = 0;
  if (!read_header(*json, answer.header) || !read_number(*json, "ID", answer.id) ||
      !read_number(*json, "TTL", ttl) || answer.id == 0 || ttl <= 0)
    return not_understood("lease", text);
  answer.ttl = std::chrono::seconds(ttl);
  return answer;
}

Result<LeaseAnswer> read_renewal(std::string_view text) {
  auto json = parse("renewal", text);
  if (!json) return tl::unexpected(std::move(json).error());
  const auto* result = member(*json, "result");
  if (result == nullptr) {
    const auto error = read_error(200, text);
    return fail("renewal: {}", key_text(error.message));
  }
  LeaseAnswer answer;
  std::int64_t ttl = 0;
  if (!read_header(*result, answer.header) || !read_number(*result, "ID", answer.id) ||
      !read_number(*result, "TTL", ttl) || ttl < 0)
    return not_understood("renewal", text);
  answer.ttl = std::chrono::seconds(ttl);
  return answer;
}

Result<std::string> read_token(std::string_view text) {
  auto json = parse("login", text);
  if (!json) return tl::unexpected(std::move(json).error());
  const auto* token = member(*json, "token");
  const auto* value = token == nullptr ? nullptr : token->get_ptr<const std::string*>();
  // It becomes a header of HTTP.
  if (value == nullptr || value->empty() || value->size() > 8192 ||
      value->find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
                               "._-~") != std::string::npos)
    return fail("login: an answer without a token");
  return *value;
}

Result<WatchAnswer> read_watch(std::string_view line) {
  auto json = parse("watch", line);
  if (!json) return tl::unexpected(std::move(json).error());
  WatchAnswer answer;
  const auto* result = member(*json, "result");
  if (result == nullptr) {
    if (member(*json, "error") == nullptr) return not_understood("watch", line);
    answer.canceled = true;
    answer.reason = read_error(200, line).message;
    return answer;
  }
  if (!read_header(*result, answer.header) || !read_flag(*result, "created", answer.created) ||
      !read_flag(*result, "canceled", answer.canceled) ||
      !read_flag(*result, "fragment", answer.fragment) ||
      !read_number(*result, "compact_revision", answer.compacted))
    return not_understood("watch", line);
  if (const auto* reason = member(*result, "cancel_reason"))
    if (const auto* text = reason->get_ptr<const std::string*>()) answer.reason = *text;
  const auto* events = member(*result, "events");
  if (events == nullptr) return answer;
  if (!events->is_array()) return not_understood("watch", line);
  answer.changes.reserve(events->size());
  for (const auto& event : *events) {
    Change& change = answer.changes.emplace_back();
    const auto* kv = member(event, "kv");
    if (kv == nullptr || !read_kv(*kv, change.kv) || change.kv.modified == 0)
      return not_understood("watch", line);
    const auto* type = member(event, "type");
    change.deleted = type != nullptr && *type == "DELETE";
  }
  return answer;
}

GatewayError read_error(unsigned http_status, std::string_view text) {
  GatewayError error{kUnknown, fmt::format("HTTP status {}", http_status)};
  const auto json = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return error;
  // {"error":"text","code":n}, or in a stream {"error":{"message":"text","grpc_code":n}}
  const nlohmann::json* from = &json;
  if (const auto* inner = member(json, "error"); inner != nullptr && inner->is_object())
    from = inner;
  for (const char* name : {"message", "error"}) {
    const auto* message = member(*from, name);
    const auto* value = message == nullptr ? nullptr : message->get_ptr<const std::string*>();
    if (value == nullptr || value->empty()) continue;
    error.message = key_text(*value);
    break;
  }
  for (const char* name : {"code", "grpc_code"}) {
    int code = 0;
    if (read_number(*from, name, code) && code != 0) error.code = code;
  }
  return error;
}

bool LineReader::feed(std::string_view bytes) {
  if (start_ > 0) {
    pending_.erase(0, start_);
    scanned_ -= start_;
    start_ = 0;
  }
  pending_ += bytes;
  const auto last = pending_.rfind('\n');
  const std::size_t open = pending_.size() - (last == std::string::npos ? 0 : last + 1);
  return open <= max_bytes_ && pending_.size() <= max_bytes_ + bytes.size();
}

std::optional<std::string> LineReader::next() {
  while (true) {
    const auto end = pending_.find('\n', scanned_);
    if (end == std::string::npos) {
      scanned_ = pending_.size();
      return std::nullopt;
    }
    std::string line = pending_.substr(start_, end - start_);
    start_ = scanned_ = end + 1;
    if (line.find_first_not_of(" \r\t") != std::string::npos) return line;
  }
}

bool BatchBuilder::add(WatchAnswer answer) {
  if (changes_.size() + answer.changes.size() > kMaxChanges) return false;
  std::move(answer.changes.begin(), answer.changes.end(), std::back_inserter(changes_));
  if (answer.fragment) return true;
  for (auto& change : changes_) {
    if (change.kv.modified < last_) return false;
    last_ = change.kv.modified;
    if (ready_.empty() || ready_.back().revision != last_) ready_.push_back({last_, {}});
    ready_.back().changes.push_back(std::move(change));
  }
  changes_.clear();
  return true;
}

std::vector<Batch> BatchBuilder::take() { return std::exchange(ready_, {}); }

}  // namespace etcd
}  // namespace mesh::store
