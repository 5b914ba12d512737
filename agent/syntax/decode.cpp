// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/decode.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "agent/syntax/duration.h"
#include "agent/syntax/go_integer.h"

namespace mesh::syntax {
namespace {

// The words of Go's strconv.ParseBool; weak typing takes "" for false.
constexpr std::array<std::string_view, 6> kTrue{"1", "t", "T", "true", "TRUE", "True"};
constexpr std::array<std::string_view, 7> kFalse{"0", "f", "F", "false", "FALSE", "False", ""};

bool one_of(std::string_view text, std::span<const std::string_view> words) {
  for (auto word : words)
    if (word == text) return true;
  return false;
}

// Weak typing takes "" for 0.
std::optional<std::int64_t> parse_integer(std::string_view text) {
  if (text.empty()) return 0;
  const auto parsed = parse_go_integer(text);
  return parsed ? parsed->value() : std::nullopt;
}

std::optional<std::int64_t> whole_number(double number) {
  // 2^63 is the first double beyond the range; the lowest value is a double.
  if (!(number >= -0x1p63 && number < 0x1p63) || std::trunc(number) != number) return std::nullopt;
  return static_cast<std::int64_t>(number);
}

std::optional<std::int64_t> weak_integer(const Value& value) {
  if (const auto* integer = value.get<std::int64_t>()) return *integer;
  if (const auto* number = value.get<double>()) return whole_number(*number);
  if (const auto* flag = value.get<bool>()) return *flag ? 1 : 0;
  if (const auto* text = value.get<std::string>()) return parse_integer(*text);
  return std::nullopt;
}

std::string decimal(double number) {
  std::array<char, 400> buffer{};  // the longest double is 309 digits before the point
  auto result =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), number, std::chars_format::fixed);
  return {buffer.data(), result.ptr};
}

std::string quoted_list(std::span<const std::string_view> words) {
  std::string out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) out += i + 1 == words.size() ? " or " : ", ";
    out += fmt::format("\"{}\"", words[i]);
  }
  return out;
}

}  // namespace

bool is_zero(const Value& value) {
  if (const auto* flag = value.get<bool>()) return !*flag;
  if (const auto* integer = value.get<std::int64_t>()) return *integer == 0;
  if (const auto* number = value.get<double>()) return *number == 0;
  if (const auto* text = value.get<std::string>()) return text->empty();
  if (const auto* array = value.get<Array>()) return array->empty();
  if (const auto* object = value.get<Object>()) return object->empty();
  return true;
}

void Decoder::error(Position at, std::string key, std::string what) {
  errors_.add({file_, at, std::move(key), std::move(what)});
  ++found_;
}

void Decoder::warn(Position at, std::string key, std::string what) {
  warnings_.add({file_, at, std::move(key), std::move(what)});
}

void Decoder::wrong(const Value& value, const Path& path, std::string_view expected) {
  error(value.at, path.to_string(), fmt::format("expected {}, got {}", expected, value.describe()));
}

bool Decoder::given_twice(const Member& member, Position first, const Path& path) {
  error(member.key_at, path.to_string(),
        fmt::format("given twice, first at line {} column {}", first.line, first.column));
  return false;
}

const Value& Decoder::unwrapped(const Value& value) {
  static const Value null;
  const auto* array = value.get<Array>();
  if (array == nullptr || array->size() > 1) return value;
  return array->empty() ? null : array->front();
}

bool Decoder::is_empty_object(const Value& value) {
  const auto* object = value.get<Object>();
  return object != nullptr && object->empty();
}

bool Decoder::decode(const Value& value, const Path& path, bool& out) {
  const Value& inner = unwrapped(value);
  if (inner.is_null()) return true;
  if (const auto* flag = inner.get<bool>()) {
    out = *flag;
  } else if (const auto* integer = inner.get<std::int64_t>()) {
    out = *integer != 0;
  } else if (const auto* number = inner.get<double>()) {
    out = *number != 0;
  } else if (const auto* text = inner.get<std::string>();
             text != nullptr && (one_of(*text, kTrue) || one_of(*text, kFalse))) {
    out = one_of(*text, kTrue);
  } else {
    wrong(value, path, "true or false");
    return false;
  }
  return true;
}

bool Decoder::decode_integer(const Value& value, const Path& path, std::int64_t low,
                             std::int64_t high, std::int64_t& out) {
  const Value& inner = unwrapped(value);
  if (inner.is_null()) return true;
  auto integer = weak_integer(inner);
  if (!integer || *integer < low || *integer > high) {
    wrong(value, path,
          high == std::numeric_limits<std::int64_t>::max()
              ? low == 0 ? "an integer that is not negative" : fmt::format("an integer")
              : fmt::format("an integer from {} to {}", low, high));
    return false;
  }
  out = *integer;
  return true;
}

bool Decoder::decode(const Value& value, const Path& path, double& out) {
  const Value& inner = unwrapped(value);
  if (inner.is_null()) return true;
  std::optional<double> parsed;
  if (const auto* number = inner.get<double>()) {
    parsed = *number;
  } else if (const auto* text = inner.get<std::string>(); text != nullptr && !text->empty()) {
    const char* end = text->data() + text->size();
    double from_text = 0;
    auto [stop, code] = std::from_chars(text->data(), end, from_text);
    if (code == std::errc() && stop == end && std::isfinite(from_text)) parsed = from_text;
  } else if (auto integer = weak_integer(inner)) {
    parsed = static_cast<double>(*integer);
  }
  if (!parsed) {
    wrong(value, path, "a number");
    return false;
  }
  out = *parsed;
  return true;
}

bool Decoder::decode(const Value& value, const Path& path, std::string& out) {
  const Value& inner = unwrapped(value);
  if (inner.is_null()) return true;
  if (const auto* text = inner.get<std::string>()) {
    out = *text;
  } else if (const auto* flag = inner.get<bool>()) {
    out.assign(1, *flag ? '1' : '0');
  } else if (const auto* integer = inner.get<std::int64_t>()) {
    out = std::to_string(*integer);
  } else if (const auto* number = inner.get<double>()) {
    out = decimal(*number);
  } else {
    wrong(value, path, "a string");
    return false;
  }
  return true;
}

bool Decoder::decode(const Value& value, const Path& path, std::chrono::nanoseconds& out) {
  const Value& inner = unwrapped(value);
  if (inner.is_null()) return true;
  if (const auto* text = inner.get<std::string>()) {
    auto parsed = parse_duration(*text);
    if (parsed)
      out = *parsed;
    else
      error(value.at, path.to_string(), std::move(parsed.error().what));
    return parsed.has_value();
  }
  auto integer = inner.get<bool>() != nullptr ? std::nullopt : weak_integer(inner);
  if (!integer) {
    wrong(value, path, "a duration such as \"1m30s\", or an integer of nanoseconds");
    return false;
  }
  out = std::chrono::nanoseconds(*integer);
  return true;
}

bool Decoder::decode(const Value& value, const Path& /*path*/, Value& out) {
  out = value;
  return true;
}

std::size_t Decoder::decode_word(const Value& value, const Path& path,
                                 std::span<const std::string_view> words) {
  const Value& inner = unwrapped(value);
  if (inner.is_null()) return kNull;
  if (const auto* text = inner.get<std::string>())
    for (std::size_t i = 0; i < words.size(); ++i)
      if (words[i] == *text) return i;
  wrong(value, path, quoted_list(words));
  return kBad;
}

const Object* Decoder::struct_object(const Value& value, const Path& path, Position& at,
                                     bool& good) {
  const Value& inner = unwrapped(value);
  if (inner.is_null()) return nullptr;
  at = inner.at;
  const auto* object = inner.get<Object>();
  if (object == nullptr) {
    good = false;
    if (const auto* array = value.get<Array>(); array != nullptr && array->size() > 1)
      error(value.at, path.to_string(),
            fmt::format("expected one object, got a list of {}", array->size()));
    else
      wrong(value, path, "an object");
  }
  return object;
}

bool Decoder::objects(const Value& value, const Path& path, std::vector<const Object*>& out) {
  if (const auto* object = value.get<Object>()) {
    out.push_back(object);
    return true;
  }
  const auto* array = value.get<Array>();
  if (array == nullptr) {
    wrong(value, path, "an object");
    return false;
  }
  bool good = true;
  for (std::size_t i = 0; i < array->size(); ++i) {
    if (const auto* object = (*array)[i].get<Object>()) {
      out.push_back(object);
    } else {
      wrong((*array)[i], path[i], "an object");
      good = false;
    }
  }
  return good;
}

}  // namespace mesh::syntax
