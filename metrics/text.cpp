// SPDX-License-Identifier: Apache-2.0
#include "metrics/text.h"

#include <algorithm>
#include <charconv>
#include <cmath>

namespace mesh::metrics {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;

bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

// [a-zA-Z_][a-zA-Z0-9_]*, which both kinds of names share; the colon is left to recording rules.
bool is_name(std::string_view name) {
  if (name.empty() || !is_alpha(name[0])) return false;
  for (char c : name)
    if (!is_alpha(c) && !is_digit(c)) return false;
  return true;
}

// Length of the UTF-8 sequence at the start of `text`, 0 if there is none (RFC 3629, table 3-7 of
// Unicode: no overlong form, no surrogate, nothing above U+10FFFF).
std::size_t utf8_length(std::string_view text) {
  auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  auto continues = [&](std::size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (!continues(1) || !continues(2)) return 0;
    if ((first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) > 0x9F)) return 0;
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if ((first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) > 0x8F)) return 0;
    return 4;
  }
  return 0;
}

// Appends the character at the start of `text` and returns how many bytes of `text` that took.
std::size_t append_character(std::string& out, std::string_view text) {
  std::size_t length = text[0] == '\0' ? 0 : utf8_length(text);
  if (length == 0) {
    out += kReplacement;
    return 1;
  }
  out += text.substr(0, length);
  return length;
}

// Neither escaped nor in need of a check.
bool is_plain(char c) {
  return static_cast<signed char>(c) > 0 && c != '\\' && c != '"' && c != '\n';
}

// `quotes`: a label value, where a quote ends the value; HELP text keeps quotes as they are.
void append_escaped(std::string& out, std::string_view text, bool quotes) {
  while (!text.empty()) {
    // The common case is a run of plain ASCII.
    std::size_t run = 0;
    while (run < text.size() && is_plain(text[run])) ++run;
    out += text.substr(0, run);
    text.remove_prefix(run);
    if (text.empty()) return;
    if (text[0] == '\\' || text[0] == '\n' || (text[0] == '"' && quotes)) {
      out += '\\';
      out += text[0] == '\n' ? 'n' : text[0];
      text.remove_prefix(1);
    } else {
      text.remove_prefix(append_character(out, text));
    }
  }
}

template <typename T>
void append_number(std::string& out, T value) {
  char digits[40];
  auto [end, code] = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, end);  // 40 bytes hold every integer and every shortest double
}

void append_double(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "NaN";
  } else if (std::isinf(value)) {
    out += value > 0 ? "+Inf" : "-Inf";
  } else {
    append_number(out, value);
  }
}

void append_seconds(std::string& out, std::uint64_t nanoseconds) {
  append_number(out, nanoseconds / kNanosecondsPerSecond);
  std::uint64_t fraction = nanoseconds % kNanosecondsPerSecond;
  if (fraction == 0) return;
  char digits[9];
  for (int i = 8; i >= 0; --i, fraction /= 10) digits[i] = static_cast<char>('0' + fraction % 10);
  std::string_view text(digits, sizeof digits);
  out += '.';
  out += text.substr(0, text.find_last_not_of('0') + 1);
}

std::string_view type_name(Type type) {
  switch (type) {
    case Type::Counter:
      return "counter";
    case Type::Gauge:
      return "gauge";
    case Type::Histogram:
      return "histogram";
  }
  return "untyped";
}

}  // namespace

std::string clean_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) text.remove_prefix(append_character(out, text));
  return out;
}

LabelSet::LabelSet(std::initializer_list<Label> labels) {
  for (const Label& label : labels) add(label.name, label.value);
}

void LabelSet::add(std::string_view name, std::string_view value) {
  valid_ = valid_ && is_name(name);
  if (!text_.empty()) text_ += ',';
  text_ += name;
  text_ += "=\"";
  append_escaped(text_, value, true);
  text_ += '"';
}

void Value::append_to(std::string& out) const {
  switch (kind_) {
    case Kind::Unsigned:
      return append_number(out, u_);
    case Kind::Signed:
      return append_number(out, i_);
    case Kind::Double:
      return append_double(out, d_);
    case Kind::Nanoseconds:
      return append_seconds(out, u_);
  }
}

DurationBounds::DurationBounds(std::span<const std::uint64_t> nanoseconds) {
  for (std::uint64_t bound : nanoseconds) append_seconds(le_.emplace_back(), bound);
}

void TextWriter::misuse(std::string what) {
  if (status_) status_ = tl::unexpected(Error{{}, std::move(what)});
}

void TextWriter::family(std::string_view name, std::string_view help, Type type) {
  name_.clear();
  if (!is_name(name)) return misuse(fmt::format("'{}' is not a metric name", clean_utf8(name)));
  if (std::find(families_.begin(), families_.end(), name) != families_.end())
    return misuse(fmt::format("metric family {} is written twice", name));
  families_.emplace_back(name);
  name_ = name;
  type_ = type;
  out_ += "# HELP ";
  out_ += name;
  out_ += ' ';
  append_escaped(out_, help, false);
  out_ += "\n# TYPE ";
  out_ += name;
  out_ += ' ';
  out_ += type_name(type);
  out_ += '\n';
}

bool TextWriter::begin_sample(bool histogram, const LabelSet& labels) {
  if (name_.empty()) {
    misuse("a sample was written outside a metric family");
    return false;
  }
  if (histogram != (type_ == Type::Histogram)) {
    misuse(fmt::format("metric family {} is a {}", name_, type_name(type_)));
    return false;
  }
  if (!labels.valid()) {
    misuse(fmt::format("metric family {}: bad label name in {}", name_, labels.text()));
    return false;
  }
  return true;
}

void TextWriter::sample(const LabelSet& labels, Value value) { sample(labels, {}, value); }

void TextWriter::sample(const LabelSet& labels, const LabelSet& more, Value value) {
  if (!begin_sample(false, labels) || !begin_sample(false, more)) return;
  out_ += name_;
  if (!labels.text().empty() || !more.text().empty()) {
    out_ += '{';
    out_ += labels.text();
    if (!labels.text().empty() && !more.text().empty()) out_ += ',';
    out_ += more.text();
    out_ += '}';
  }
  out_ += ' ';
  value.append_to(out_);
  out_ += '\n';
}

void TextWriter::histogram(const LabelSet& labels, const DurationBounds& bounds,
                           std::span<const std::uint64_t> buckets, Nanoseconds sum) {
  if (!begin_sample(true, labels)) return;
  if (buckets.size() != bounds.le().size() + 1)
    return misuse(fmt::format("metric family {}: {} buckets for {} bounds", name_, buckets.size(),
                              bounds.le().size()));
  std::uint64_t cumulative = 0;
  for (std::size_t i = 0; i < buckets.size(); ++i) {
    cumulative += buckets[i];
    out_ += name_;
    out_ += "_bucket{";
    out_ += labels.text();
    if (!labels.text().empty()) out_ += ',';
    out_ += "le=\"";
    out_ += i < bounds.le().size() ? std::string_view(bounds.le()[i]) : std::string_view("+Inf");
    out_ += "\"} ";
    append_number(out_, cumulative);
    out_ += '\n';
  }
  auto total = [&](std::string_view suffix, Value value) {
    out_ += name_;
    out_ += suffix;
    if (!labels.text().empty()) {
      out_ += '{';
      out_ += labels.text();
      out_ += '}';
    }
    out_ += ' ';
    value.append_to(out_);
    out_ += '\n';
  };
  total("_sum", sum);
  total("_count", cumulative);
}

void TextWriter::rollback(const Mark& mark) {
  out_.resize(mark.bytes);
  families_.resize(mark.families);
  name_.clear();
}

}  // namespace mesh::metrics
