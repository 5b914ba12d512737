// SPDX-License-Identifier: Apache-2.0
// Any text as a filter: parsed or refused with a place inside it, matched in bounded time.
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "agent/config/filter.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto filter = mesh::config::Filter::parse(text);
  if (!filter) {
    if (filter.error().at > size || filter.error().what.empty()) std::abort();
    return 0;
  }
  static const std::vector<std::string> tags{"primary", "v1"};
  static const std::map<std::string, std::string> meta{{"version", "v1"}, {"empty", ""}};
  static const std::vector<mesh::config::FilterCheck> checks{{"a", "b", "passing", "", "", "tcp"}};
  mesh::config::FilterSubject subject;
  subject.id = "web-1";
  subject.service = "web";
  subject.port = 80;
  subject.tags = tags;
  subject.meta = &meta;
  subject.checks = checks;
  const bool first = (*filter)->matches(subject);
  if ((*filter)->matches(subject) != first) std::abort();
  (void)(*filter)->matches({});
  return 0;
}
