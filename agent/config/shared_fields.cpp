// SPDX-License-Identifier: Apache-2.0
// What several kinds of entries have in common.
#include <fmt/format.h>
#include <re2/re2.h>

#include <algorithm>

#include "agent/base/ascii.h"
#include "agent/config/entry_fields.h"

namespace mesh::config {
namespace {

using syntax::Fields;
using syntax::printable;

constexpr std::size_t kMaxNameBytes = 63;
// Consul's own bounds for meta.
constexpr std::size_t kMaxMetaPairs = 64;
constexpr std::size_t kMaxMetaKeyBytes = 128;
constexpr std::size_t kMaxMetaValueBytes = 512;
constexpr std::int64_t kMaxMatchRegexMemory = 1 << 20;

constexpr std::array<std::string_view, 9> kMethods{"GET",    "HEAD",    "POST",    "PUT",  "PATCH",
                                                   "DELETE", "CONNECT", "OPTIONS", "TRACE"};

using ascii::is_alnum;

// "A, B or C"
template <typename List, typename Name>
std::string names(const List& list, Name name_of) {
  std::string out;
  for (std::size_t i = 0; i < list.size(); ++i)
    out += fmt::format("{}{}",
                       i == 0                 ? ""
                       : i + 1 == list.size() ? " or "
                                              : ", ",
                       name_of(list[i]));
  return out;
}

}  // namespace

bool is_service_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && is_alnum(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; });
}

void own_tenancy(Fields& f) {
  for (std::string_view key : {"Namespace", "Partition"}) {
    std::string value;
    if (f.get(key, value) && !value.empty() && value != "default")
      f.wrong(key, "\"default\" or nothing (namespaces and partitions are of Consul Enterprise)");
  }
}

void read_meta(Fields& f, StringMap& out) {
  if (!f.get("Meta", out)) return;
  if (out.size() > kMaxMetaPairs) f.wrong("Meta", "at most 64 pairs");
  for (const auto& [key, value] : out)
    if (key.empty() || key.size() > kMaxMetaKeyBytes || value.size() > kMaxMetaValueBytes ||
        !std::all_of(key.begin(), key.end(),
                     [](char c) { return is_alnum(c) || c == '-' || c == '_'; }))
      f.error("Meta", fmt::format("\"{}\": expected a key of 1 to 128 letters, digits, '-' or '_' "
                                  "and a value of at most 512 bytes",
                                  printable(key)));
}

void get_service(Fields& f, std::string_view key, std::string& out) {
  if (f.get(key, out) && !out.empty() && !is_service_name(out))
    f.wrong(key,
            "the name of a service: 1 to 63 characters, a letter or digit first, then letters, "
            "digits, '-', '_' or '.'");
}

void get_timeout(Fields& f, std::string_view key, Duration& out) {
  if (f.get(key, out) && out < Duration::zero()) f.wrong(key, "a duration that is not negative");
}

void inert(Fields& f, std::initializer_list<std::string_view> keys, std::string_view why) {
  for (auto key : keys) {
    const auto* value = f.value(key);
    if (value != nullptr && !syntax::is_zero(*value)) f.warn(key, std::string(why));
  }
}

void check_regex(Fields& f, std::string_view key, const std::string& pattern) {
  re2::RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kMaxMatchRegexMemory);
  const re2::RE2 regex(pattern, options);
  if (!regex.ok())
    f.error(key, fmt::format("bad regular expression: {}", printable(regex.error())));
}

void read_matcher(Fields& f, std::span<const Matcher> matchers, MatchBy& by, std::string& value) {
  std::size_t given = 0;
  for (const auto& matcher : matchers) {
    std::string text;
    bool present = false;
    if (matcher.by == MatchBy::Present)
      (void)f.get(matcher.key, present);
    else
      (void)f.get(matcher.key, text);
    if (!present && text.empty()) continue;
    if (++given > 1) continue;
    by = matcher.by;
    value = std::move(text);
    if (by == MatchBy::Regex) check_regex(f, matcher.key, value);
  }
  if (given != 1)
    f.error(fmt::format("expected exactly one of {}",
                        names(matchers, [](const Matcher& m) { return m.key; })));
}

void read_path(Fields& f, HttpMatch& out) {
  constexpr std::array<std::pair<std::string_view, PathBy>, 3> kPaths{
      {{"PathExact", PathBy::Exact}, {"PathPrefix", PathBy::Prefix}, {"PathRegex", PathBy::Regex}}};
  for (const auto& [key, by] : kPaths) {
    std::string text;
    if (!f.get(key, text) || text.empty()) continue;
    if (out.path_by != PathBy::Any) {
      f.error(key, "expected at most one of PathExact, PathPrefix and PathRegex");
      continue;
    }
    if (by == PathBy::Regex)
      check_regex(f, key, text);
    else if (text.front() != '/')
      f.wrong(key, "a path that begins with '/'");
    out.path_by = by;
    out.path = std::move(text);
  }
}

void read_methods(Fields& f, std::vector<std::string>& out) {
  if (!f.get("Methods", out)) return;
  for (auto& method : out)
    std::transform(method.begin(), method.end(), method.begin(), ascii::to_upper);
  for (auto it = out.begin(); it != out.end(); ++it) {
    if (std::find(kMethods.begin(), kMethods.end(), *it) == kMethods.end())
      f.error("Methods", fmt::format("\"{}\" is no method of HTTP", printable(*it)));
    else if (std::find(out.begin(), it, *it) != it)
      f.error("Methods", fmt::format("\"{}\" is there twice", *it));
  }
}

void decode_fields(Fields& f, HeaderModifiers& out) {
  f.get("Add", out.add);
  f.get("Set", out.set);
  f.get("Remove", out.remove);
}

std::array<syntax::Word<Action>, 2> decode_words(Action) {
  return {{{"allow", Action::Allow}, {"deny", Action::Deny}}};
}

std::array<syntax::Word<Protocol>, 4> decode_words(Protocol) {
  return {{{"tcp", Protocol::Tcp},
           {"http", Protocol::Http},
           {"http2", Protocol::Http2},
           {"grpc", Protocol::Grpc}}};
}

std::array<syntax::Word<MutualTlsMode>, 3> decode_words(MutualTlsMode) {
  return {{{"", MutualTlsMode::Default},
           {"strict", MutualTlsMode::Strict},
           {"permissive", MutualTlsMode::Permissive}}};
}

}  // namespace mesh::config
