// SPDX-License-Identifier: Apache-2.0
// Writes the Prometheus text exposition format 0.0.4 into one buffer. It knows the format, nothing
// of what is measured.
#pragma once

#include <compare>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.h"

namespace mesh::metrics {

enum class Type { Counter, Gauge, Histogram };

struct Label {
  std::string_view name;
  std::string_view value;
};

// Labels rendered once (`a="x",b="y"`), so that one series can be written into several families.
// Values are escaped; bytes that are not UTF-8, and NUL, become U+FFFD: one of them makes
// Prometheus drop a whole scrape. Equal sets compare equal by their text.
class LabelSet {
 public:
  LabelSet() = default;
  LabelSet(std::initializer_list<Label> labels);
  void add(std::string_view name, std::string_view value);

  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] bool valid() const { return valid_; }  // false: a label name breaks the grammar
  auto operator<=>(const LabelSet&) const = default;

 private:
  std::string text_;
  bool valid_ = true;
};

// A duration that is written as decimal seconds without going through a double.
struct Nanoseconds {
  std::uint64_t count = 0;
};

// One sample. Integers keep all 64 bits; a double is written in its shortest exact form.
class Value {
 public:
  template <std::unsigned_integral T>
  Value(T v) : kind_(Kind::Unsigned), u_(v) {}
  template <std::signed_integral T>
  Value(T v) : kind_(Kind::Signed), i_(v) {}
  template <std::floating_point T>
  Value(T v) : kind_(Kind::Double), d_(v) {}
  Value(Nanoseconds v) : kind_(Kind::Nanoseconds), u_(v.count) {}

  void append_to(std::string& out) const;

 private:
  enum class Kind { Unsigned, Signed, Double, Nanoseconds } kind_;
  union {
    std::uint64_t u_;
    std::int64_t i_;
    double d_;
  };
};

// Upper bounds of a histogram over durations, ready to be written. The +Inf bucket is not listed.
class DurationBounds {
 public:
  explicit DurationBounds(std::span<const std::uint64_t> nanoseconds);  // ascending
  [[nodiscard]] std::span<const std::string> le() const { return le_; }

 private:
  std::vector<std::string> le_;
};

// Misuse (a bad name, a family opened twice, a sample outside its family) writes nothing and is
// kept in status(): the output stays well formed whatever a collector does. Not thread-safe.
class TextWriter {
 public:
  TextWriter() = default;
  explicit TextWriter(std::size_t reserve) { out_.reserve(reserve); }

  // Opens a family: writes HELP and TYPE. Every following sample belongs to it.
  void family(std::string_view name, std::string_view help, Type type);

  void sample(const LabelSet& labels, Value value);
  void sample(const LabelSet& labels, const LabelSet& more, Value value);

  // `buckets` are not cumulative and have one entry more than `bounds`: the last is +Inf.
  void histogram(const LabelSet& labels, const DurationBounds& bounds,
                 std::span<const std::uint64_t> buckets, Nanoseconds sum);

  // The first misuse since the last call of clear_status(), or success.
  [[nodiscard]] const Status& status() const { return status_; }
  void clear_status() { status_ = {}; }

  // What was written after mark() disappears with rollback().
  struct Mark {
    std::size_t bytes = 0;
    std::size_t families = 0;
  };
  [[nodiscard]] Mark mark() const { return {out_.size(), families_.size()}; }
  void rollback(const Mark& mark);

  [[nodiscard]] const std::string& text() const { return out_; }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  bool begin_sample(bool histogram, const LabelSet& labels);
  void misuse(std::string what);

  std::string out_;
  std::vector<std::string> families_;  // names already written, in order
  std::string name_;                   // the open family; empty when none is
  Type type_ = Type::Counter;
  Status status_;
};

// `text` with everything that is not valid UTF-8 (and NUL) replaced by U+FFFD.
std::string clean_utf8(std::string_view text);

}  // namespace mesh::metrics
