// SPDX-License-Identifier: Apache-2.0
#include "agent/syntax/yaml.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <exception>
#include <istream>
#include <streambuf>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "agent/syntax/text.h"
#include "agent/syntax/yaml_scalar.h"

namespace mesh::syntax {
namespace {

// Ends the parser from inside an event; does not leave this file.
struct Stop {
  SyntaxError error;
};

// What an alias adds to the tree.
struct Size {
  std::size_t values = 1;
  std::size_t bytes = 0;
  std::size_t levels = 0;
};

void measure(const Value& value, std::size_t level, Size& size) {
  size.levels = std::max(size.levels, level);
  if (const auto* text = value.get<std::string>()) size.bytes += text->size();
  if (const auto* array = value.get<Array>()) {
    size.values += array->size();
    for (const auto& element : *array) measure(element, level + 1, size);
  }
  if (const auto* object = value.get<Object>()) {
    size.values += object->size();
    for (const auto& member : *object) {
      size.bytes += member.key.size();
      measure(member.value, level + 1, size);
    }
  }
}

// Builds the trees from the parser's events.
class Builder final : public YAML::EventHandler {
 public:
  explicit Builder(std::string_view text) : text_(text), locator_(text) {}

  std::vector<Value> take() { return std::move(documents_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    // yaml-cpp takes what it cannot use for the next document, and again for ever.
    if (started_ && !text_.substr(static_cast<std::size_t>(mark.pos)).starts_with("---"))
      stop(mark, "expected the end of the document, or '---' and another");
    started_ = true;
    root_ = Value();
    anchors_.clear();
  }
  void OnDocumentEnd() override {
    if (!root_.is_null()) documents_.push_back(std::move(root_));
  }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    finish(add(mark, std::monostate{}), anchor);
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& text) override {
    if (text.find('\0') != std::string::npos) stop(mark, "a NUL byte is not allowed");
    // yaml-cpp makes a lone byte of some escapes, such as \N.
    for (std::size_t i = 0, n = 0; i < text.size(); i += n)
      if (n = utf8_length(text, i); n == 0) stop(mark, "an escape that gives no UTF-8");
    const bool plain = tag == "?";
    if (!plain) check_tag(mark, tag);
    if (expects_key()) return key(mark, anchor, plain, text);
    if (!plain) return finish(add(mark, text), anchor);
    auto value = resolve_yaml_word(text);
    if (!value) stop(mark, std::string(value.error()));
    finish(add(mark, std::move(value->data)), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    auto it = anchors_.find(anchor);
    if (it == anchors_.end()) stop(mark, "an alias inside of what it stands for");
    spend(mark, it->second);
    Value* added = add(mark, std::monostate{});
    added->data = it->second.data;
    finish(added, YAML::NullAnchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    check_tag(mark, tag);
    open(mark, Array{}, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    check_tag(mark, tag);
    open(mark, Object{}, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    Value* value;
    YAML::anchor_t anchor;
    bool wants_key;  // of a mapping: the next event is a key
    std::unordered_set<std::string> keys;
  };

  [[nodiscard]] Position at(const YAML::Mark& mark) {
    return locator_.to(mark.pos < 0 ? 0 : static_cast<std::size_t>(mark.pos));
  }

  [[noreturn]] void stop(const YAML::Mark& mark, std::string what) {
    throw Stop{{at(mark), std::move(what)}};
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!")
      stop(mark, fmt::format("tags such as \"{}\" are not supported", printable(tag)));
  }

  [[nodiscard]] bool expects_key() const { return !open_.empty() && open_.back().wants_key; }

  void key(const YAML::Mark& mark, YAML::anchor_t anchor, bool plain, const std::string& text) {
    if (anchor != YAML::NullAnchor) stop(mark, "an anchor on a key is not supported");
    if (plain && text == "<<") stop(mark, "merge keys (<<) are not supported");
    Frame& frame = open_.back();
    if (!frame.keys.insert(text).second)
      stop(mark, fmt::format("the key \"{}\" is given twice", printable(text)));
    frame.wants_key = false;
    std::get<Object>(frame.value->data).push_back({text, at(mark), {}});
  }

  template <typename T>
  Value* add(const YAML::Mark& mark, T&& data) {
    if (expects_key()) stop(mark, "expected a key: plain or quoted text");
    count(mark, 1);
    Value* slot = &root_;
    if (!open_.empty()) {
      Value& parent = *open_.back().value;
      if (auto* array = std::get_if<Array>(&parent.data))
        slot = &array->emplace_back();
      else
        slot = &std::get<Object>(parent.data).back().value;
    }
    slot->at = at(mark);
    slot->data = std::forward<T>(data);
    return slot;
  }

  template <typename T>
  void open(const YAML::Mark& mark, T&& data, YAML::anchor_t anchor) {
    Value* added = add(mark, std::forward<T>(data));
    if (open_.size() == kMaxDepth)
      stop(mark, fmt::format("nested deeper than {} levels", kMaxDepth));
    // The pointer stays valid: a parent does not grow while it is open.
    open_.push_back({added, anchor, added->get<Object>() != nullptr, {}});
  }

  void close() {
    const Frame frame = std::move(open_.back());
    open_.pop_back();
    finish(frame.value, frame.anchor);
  }

  // A value is whole: the next of a mapping is a key again.
  void finish(const Value* value, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      spend({}, *value);
      anchors_.insert_or_assign(anchor, *value);
    }
    if (!open_.empty() && open_.back().value->get<Object>() != nullptr)
      open_.back().wants_key = true;
  }

  void count(const YAML::Mark& mark, std::size_t values) {
    values_ += values;
    if (values_ > kMaxValues)
      stop(mark, fmt::format("more than {} values in one file", kMaxValues));
  }

  // Before a copy is made: a few lines of aliases of aliases are a tree of any size.
  void spend(const YAML::Mark& mark, const Value& value) {
    Size size;
    measure(value, 0, size);
    count(mark, size.values);
    copied_ += size.bytes;
    if (copied_ > kMaxFileBytes)
      stop(mark,
           fmt::format("anchors and aliases stand for more than {} MiB", kMaxFileBytes >> 20));
    if (open_.size() + size.levels > kMaxDepth)
      stop(mark, fmt::format("nested deeper than {} levels", kMaxDepth));
  }

  std::string_view text_;
  Locator locator_;
  Value root_;
  std::vector<Value> documents_;
  std::vector<Frame> open_;
  std::unordered_map<YAML::anchor_t, Value> anchors_;
  std::size_t values_ = 0;
  std::size_t copied_ = 0;
  bool started_ = false;
};

// Reads the text in place.
class View final : public std::streambuf {
 public:
  explicit View(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // a get area is never written to
    setg(begin, begin, begin + text.size());
  }
};

// yaml-cpp takes 0x04 for the end of the text, and YAML has no control characters anyway.
tl::expected<void, SyntaxError> check_bytes(std::string_view text) {
  std::size_t flow_marks = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7f)
      return tl::unexpected(SyntaxError{
          Locator(text).to(i), fmt::format("the control character 0x{:02x} is not allowed", byte)});
    if (byte == '[' || byte == '{' || byte == ',') ++flow_marks;
    if (flow_marks > kMaxYamlFlowMarks)
      return tl::unexpected(SyntaxError{
          Locator(text).to(i),
          fmt::format("more than {} of '[', '{{' and ',' in one file", kMaxYamlFlowMarks)});
  }
  return {};
}

}  // namespace

tl::expected<std::vector<Value>, SyntaxError> read_yaml(std::string_view text) {
  auto body = check_text(text);
  if (!body) return tl::unexpected(std::move(body.error()));
  if (auto checked = check_bytes(*body); !checked)
    return tl::unexpected(std::move(checked.error()));
  try {
    View view(*body);
    std::istream stream(&view);
    YAML::Parser parser(stream);
    Builder builder(*body);
    while (parser.HandleNextDocument(builder)) {
    }
    return builder.take();
  } catch (Stop& stop) {
    return tl::unexpected(std::move(stop.error));
  } catch (const YAML::ParserException& error) {
    const auto offset = static_cast<std::size_t>(std::max(error.mark.pos, 0));
    return tl::unexpected(SyntaxError{Locator(*body).to(offset),
                                      fmt::format("not valid YAML: {}", printable(error.msg))});
  } catch (const std::exception& error) {
    return tl::unexpected(SyntaxError{{}, fmt::format("cannot be read: {}", error.what())});
  }
}

}  // namespace mesh::syntax
