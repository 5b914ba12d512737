// SPDX-License-Identifier: Apache-2.0
// Binds a tree to C++ structs the way Consul's decoder does: several spellings of a key, weak
// typing, blocks or objects, one-element lists. README.md has the rules. A struct says what it
// holds in a function next to it, found by its argument:
//
//   struct Match { std::optional<std::string> path_exact; std::vector<std::string> methods; };
//   void decode_fields(syntax::Fields& f, Match& out) {
//     f.get("PathExact", out.path_exact);
//     f.get("Methods", out.methods);
//   }
//
// and an enum which words there are:
//
//   std::array<syntax::Word<Action>, 2> decode_words(Action);   // {{{"allow", Action::Allow}, ...
//
// All errors of a tree are told, not only the first.
#pragma once

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "agent/syntax/errors.h"
#include "agent/syntax/path.h"
#include "agent/syntax/value.h"

namespace mesh::syntax {

// A key as Consul names it, "ConnectTimeoutMs", against a key of a file: letters may differ in
// case, and the written one may be the snake form, "connect_timeout_ms".
bool same_key(std::string_view key, std::string_view written);

// Null, false, 0, "", [] and {}: what Go cannot tell from a key that is not there.
bool is_zero(const Value& value);

// A value and where it stands, for rules that are checked later. {0, 0} if it was not given.
template <typename T>
struct Located {
  T value{};
  Position at;
};

template <typename E>
struct Word {
  std::string_view text;
  E value;
};

class Fields;

// What an empty list means something for: for everything else it is the same as null.
template <typename T>
inline constexpr bool kTakesLists = std::is_same_v<T, Value>;
template <typename T>
inline constexpr bool kTakesLists<std::vector<T>> = true;
template <typename T, typename Compare>
inline constexpr bool kTakesLists<std::map<std::string, T, Compare>> = true;

template <typename T>
concept HasFields = requires(Fields& fields, T& out) {
  decode_fields(fields, out);
};
template <typename T>
concept HasWords = std::is_enum_v<T> && requires(T value) {
  decode_words(value);
};

// Decodes the trees of one file.
class Decoder {
 public:
  // What is wrong goes to `errors`, what is right but without effect to `warnings`.
  Decoder(std::string file, ErrorList& errors, ErrorList& warnings)
      : file_(std::move(file)), errors_(errors), warnings_(warnings) {}
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  void error(Position at, std::string key, std::string what);
  void warn(Position at, std::string key, std::string what);
  // "expected {expected}, got {value}"
  void wrong(const Value& value, const Path& path, std::string_view expected);
  [[nodiscard]] std::size_t found() const { return found_; }  // errors told so far, by this decoder
  [[nodiscard]] const std::string& file() const { return file_; }

  // All return false if there was an error, which they told; `out` is then as far as it was good.
  // Null leaves `out` as it is.
  bool decode(const Value& value, const Path& path, bool& out);
  bool decode(const Value& value, const Path& path, double& out);
  bool decode(const Value& value, const Path& path, std::string& out);
  bool decode(const Value& value, const Path& path, std::chrono::nanoseconds& out);
  bool decode(const Value& value, const Path& path, Value& out);  // the tree as it is
  bool decode_integer(const Value& value, const Path& path, std::int64_t low, std::int64_t high,
                      std::int64_t& out);

  template <typename T>
  requires(std::integral<T> && !std::same_as<T, bool>) bool decode(const Value& value,
                                                                   const Path& path, T& out) {
    return decode_in(value, path, lowest<T>(), highest<T>(), out);
  }

  template <typename T>
  bool decode_in(const Value& value, const Path& path, std::int64_t low, std::int64_t high,
                 T& out) {
    std::int64_t integer = static_cast<std::int64_t>(out);
    if (!decode_integer(value, path, low, high, integer)) return false;
    out = static_cast<T>(integer);
    return true;
  }

  template <HasWords E>
  bool decode(const Value& value, const Path& path, E& out) {
    const auto words = decode_words(out);
    std::vector<std::string_view> texts;
    for (const auto& word : words) texts.push_back(word.text);
    auto index = decode_word(value, path, texts);
    if (index == kNull) return true;
    if (index == kBad) return false;
    out = std::next(std::begin(words), static_cast<std::ptrdiff_t>(index))->value;
    return true;
  }

  template <HasFields T>
  bool decode(const Value& value, const Path& path, T& out);

  template <typename T>
  bool decode(const Value& value, const Path& path, std::optional<T>& out) {
    if (value.is_null() || (!kTakesLists<T> && unwrapped(value).is_null())) return true;
    return decode(value, path, out.emplace());
  }

  template <typename T>
  bool decode(const Value& value, const Path& path, Located<T>& out) {
    if (value.is_null()) return true;
    out.at = value.at;
    return decode(value, path, out.value);
  }

  // One value stands for a list of one; {} for an empty list.
  template <typename T>
  bool decode(const Value& value, const Path& path, std::vector<T>& out) {
    if (value.is_null()) return true;
    out.clear();
    const auto* array = value.get<Array>();
    if (array == nullptr) {
      if (is_empty_object(value)) return true;
      return decode(value, path, out.emplace_back());
    }
    out.reserve(array->size());
    bool good = true;
    for (std::size_t i = 0; i < array->size(); ++i)
      good = decode((*array)[i], path[i], out.emplace_back()) && good;
    return good;
  }

  // An object, or a list of objects that are taken together, as repeated blocks make it.
  template <typename T, typename Compare>
  bool decode(const Value& value, const Path& path, std::map<std::string, T, Compare>& out) {
    if (value.is_null()) return true;
    out.clear();
    std::vector<const Object*> parts;
    if (!objects(value, path, parts)) return false;
    bool good = true;
    std::map<std::string_view, Position> seen;
    for (const Object* part : parts) {
      for (const auto& member : *part) {
        const Path inside = path / member.key;
        auto [first, fresh] = seen.emplace(member.key, member.key_at);
        if (fresh)
          good = decode(member.value, inside, out[member.key]) && good;
        else
          good = given_twice(member, first->second, inside);
      }
    }
    return good;
  }

  // False, after it told that `member` was there already.
  bool given_twice(const Member& member, Position first, const Path& path);
  // An object is itself, a list of objects are its elements. False if it is neither (told).
  bool objects(const Value& value, const Path& path, std::vector<const Object*>& out);

 private:
  friend class Fields;
  static constexpr std::size_t kBad = static_cast<std::size_t>(-1);
  static constexpr std::size_t kNull = static_cast<std::size_t>(-2);

  template <typename T>
  static constexpr std::int64_t lowest() {
    return std::is_signed_v<T> ? static_cast<std::int64_t>(std::numeric_limits<T>::min()) : 0;
  }
  template <typename T>
  static constexpr std::int64_t highest() {
    constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
    if constexpr (sizeof(T) < sizeof(kMax))
      return static_cast<std::int64_t>(std::numeric_limits<T>::max());
    else
      return kMax;
  }

  static bool is_empty_object(const Value& value);
  // A list of one is what is in it; null for an empty one. The value itself otherwise.
  static const Value& unwrapped(const Value& value);
  // The object that stands for a struct; null without an error for null and [].
  const Object* struct_object(const Value& value, const Path& path, Position& at, bool& good);
  std::size_t decode_word(const Value& value, const Path& path,
                          std::span<const std::string_view> words);

  std::string file_;
  ErrorList& errors_;
  ErrorList& warnings_;
  std::size_t found_ = 0;
};

// One object while it is bound to a struct. What decode_fields() does not ask for is an unknown
// key. Keys are string literals.
class Fields {
 public:
  using Aliases = std::initializer_list<std::string_view>;  // beyond the forms of same_key()

  Fields(Decoder& decoder, const Object& object, Position at, const Path& path)
      : decoder_(decoder), object_(object), at_(at), path_(path), taken_(object.size()) {}
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  // Reads the value of `key` into `out`. False if it is not there, null, or bad (which is told).
  template <typename T>
  bool get(std::string_view key, T& out, Aliases aliases = {}) {
    const Member* member = find(key, aliases);
    if (member == nullptr || member->value.is_null()) return false;
    return decoder_.decode(member->value, path_ / member->key, out);
  }
  // The same, and an error if it is not there.
  template <typename T>
  bool required(std::string_view key, T& out, Aliases aliases = {}) {
    if (!given(key, aliases)) {
      missing(key);
      return false;
    }
    return get(key, out, aliases);
  }
  // The same as get() for an integer of a narrower range.
  template <typename T>
  bool ranged(std::string_view key, T& out, std::int64_t low, std::int64_t high,
              Aliases aliases = {}) {
    const Member* member = find(key, aliases);
    if (member == nullptr || member->value.is_null()) return false;
    if constexpr (requires { out.emplace(); })
      return decoder_.decode_in(member->value, path_ / member->key, low, high, out.emplace());
    else
      return decoder_.decode_in(member->value, path_ / member->key, low, high, out);
  }

  // The key is there and not null.
  bool given(std::string_view key, Aliases aliases = {});
  // Null if the key is not there.
  const Value* value(std::string_view key, Aliases aliases = {});

  // A valid key whose value means nothing to us, silently.
  void ignore(std::string_view key, Aliases aliases = {});
  // A valid key that is without effect here: a warning unless it holds nothing (is_zero).
  void no_effect(std::string_view key, std::string_view why, Aliases aliases = {});
  // A valid key that cannot be accepted: an error unless it holds nothing (is_zero).
  void refuse(std::string_view key, std::string_view why, Aliases aliases = {});
  // Keys that an entry carries when it was read from a Consul server.
  void ignore_server_keys();
  // Whatever else is there is neither read nor an unknown key.
  void ignore_rest() { taken_.assign(taken_.size(), true); }

  // An error at the value of `key`, or at the object when the key is not there.
  void error(std::string_view key, std::string what);
  void error(std::string what);  // of the object as a whole
  void warn(std::string_view key, std::string what);
  void wrong(std::string_view key, std::string_view expected);  // "expected ..., got ..."
  void missing(std::string_view key);                           // "'key' is required"

  [[nodiscard]] Position at() const { return at_; }       // of the object
  [[nodiscard]] Position at(std::string_view key) const;  // of a value; of the object if not there
  [[nodiscard]] const Path& path() const { return path_; }
  [[nodiscard]] std::string path(std::string_view key) const;
  // The key as the file has it, `key` itself if it is not there.
  [[nodiscard]] std::string written(std::string_view key) const;
  [[nodiscard]] const Object& object() const { return object_; }
  [[nodiscard]] Decoder& decoder() { return decoder_; }

  // Tells every key that nobody asked for. Called by Decoder::decode.
  void finish();

 private:
  struct Slot {
    std::string_view key;
    const Member* member;  // null: not there
    bool hidden = false;   // not to be suggested
  };

  const Member* find(std::string_view key, Aliases aliases, bool hidden = false);
  [[nodiscard]] const Slot* slot(std::string_view key) const;
  [[nodiscard]] const Member* found(std::string_view key) const;
  [[nodiscard]] std::string hint(std::string_view written) const;

  Decoder& decoder_;
  const Object& object_;
  Position at_;
  const Path& path_;
  std::vector<Slot> slots_;
  std::vector<bool> taken_;  // of each member
};

template <HasFields T>
bool Decoder::decode(const Value& value, const Path& path, T& out) {
  Position at;
  bool good = true;
  const Object* object = struct_object(value, path, at, good);
  if (object == nullptr) return good;
  const std::size_t before = found_;
  Fields fields(*this, *object, at, path);
  decode_fields(fields, out);
  fields.finish();
  return found_ == before;
}

}  // namespace mesh::syntax
