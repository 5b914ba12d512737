// SPDX-License-Identifier: Apache-2.0
// A user-space stream that reads any mixture of good records, records with odd types and padding,
// and garbage, cut anywhere, and that is handed to a successor now and then. Invariants: what it
// delivers is what was sealed as application data, in order; Eof and Failed are final; nothing is
// buffered when it says Blocked; its state survives its own serialisation.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "agent/base/unique_fd.h"
#include "ktls/record_key.h"
#include "ktls/user_stream.h"

namespace {

using mesh::Io;
using mesh::UniqueFd;
using namespace mesh::ktls;

void require(bool condition, int line = __builtin_LINE()) {
  if (!condition) std::fprintf(stderr, "violated at line %d\n", line);
  if (!condition) std::abort();
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
  std::uint8_t byte() { return at_ == end_ ? 0 : *at_++; }
  std::string bytes(std::size_t most) {
    const auto size = std::min<std::size_t>(most, static_cast<std::size_t>(end_ - at_));
    std::string text(reinterpret_cast<const char*>(at_), size);
    at_ += size;
    return text;
  }
  [[nodiscard]] bool done() const { return at_ == end_; }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

StreamState state_of(Cipher cipher, bool client) {
  StreamState state;
  state.cipher = cipher;
  state.control.client = client;
  state.limit_records = KeyLimit::kGcmRecords;
  for (auto* direction : {&state.tx, &state.rx}) {
    direction->keys.key.resize(traits_of(cipher).key_bytes);
    direction->keys.iv.resize(kIvBytes);
  }
  return state;
}

struct Run {
  UniqueFd ours;
  UniqueFd theirs;
  std::unique_ptr<Stream> stream;
  std::string expected;
  std::size_t delivered = 0;
  Io last;

  void read(std::size_t size) {
    std::array<std::byte, 20'000> into;
    const Io io = stream->read(ours.get(), std::span(into).first(std::min(size, into.size())));
    const bool was_final = last.kind == Io::Kind::Eof || last.kind == Io::Kind::Failed;
    if (was_final) require(io.kind == last.kind && io.errnum == last.errnum);
    if (io.kind == Io::Kind::Bytes) {
      require(io.bytes > 0 && delivered + io.bytes <= expected.size());
      require(std::equal(
          into.begin(), into.begin() + static_cast<std::ptrdiff_t>(io.bytes),
          std::as_bytes(std::span(expected)).begin() + static_cast<std::ptrdiff_t>(delivered)));
      delivered += io.bytes;
    } else {
      require(!stream->buffered());
      require(io.kind != Io::Kind::Failed || io.errnum != 0);
    }
    last = io;
  }

  void hand_over() {
    auto state = parse_stream_state(serialize(stream->export_state()));
    require(state.has_value());
    auto next = import_stream(std::move(*state));
    require(next.has_value());
    stream = std::move(*next);
  }

  void send(const void* data, std::size_t size) {
    // What does not fit is lost: the stream is then cut, which is an input too.
    (void)!::send(theirs.get(), data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  const auto cipher = static_cast<Cipher>(input.byte() % 3);
  const bool client = input.byte() % 2 == 0;
  int fds[2];
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
  Run run{UniqueFd(fds[0]), UniqueFd(fds[1]), nullptr, {}, 0, {}};
  auto stream = UserStream::create(state_of(cipher, client));
  require(stream.has_value());
  run.stream = std::move(*stream);
  const StreamState peer = state_of(cipher, !client);
  auto key = RecordKey::create(cipher, peer.tx.keys, 0, RecordKey::Use::Seal);
  require(key.has_value());

  bool clean = true;  // no garbage was sent yet: data that is sealed will be expected
  while (!input.done()) {
    const std::uint8_t op = input.byte();
    switch (op % 6) {
      case 0:
      case 1: {  // a record; sometimes large, sometimes padded
        const std::uint8_t type_byte = input.byte();
        const auto type = static_cast<ContentType>(20 + type_byte % 5);
        std::string content = input.bytes(input.byte());
        if (op % 64 == 1) content.resize(kMaxPlain - op, 'x');
        std::string inner = content;
        auto outer_type = type;
        if ((type_byte & 0x40) != 0) {
          inner += static_cast<char>(type);
          inner.append(type_byte & 0x3f, '\0');
          outer_type = ContentType::Invalid;
        }
        std::vector<std::byte> record(inner.size() + kSealOverhead);
        const auto length = key->seal(outer_type, std::as_bytes(std::span(inner)), record);
        if (!length) break;
        if (clean && type == ContentType::ApplicationData) run.expected += content;
        std::size_t cut = *length;
        if (op >= 250) cut = input.byte() % cut;
        if (cut != *length) clean = false;
        run.send(record.data(), cut);
        break;
      }
      case 2: {  // garbage
        const std::string bytes = input.bytes(input.byte());
        if (!bytes.empty()) clean = false;
        run.send(bytes.data(), bytes.size());
        break;
      }
      case 3:
        run.hand_over();
        break;
      case 4:
        run.read(1 + input.byte());
        break;
      case 5:
        run.read(20'000);
        break;
    }
  }
  run.theirs.reset();
  for (int i = 0; i < 10'000 && run.last.kind != Io::Kind::Eof; ++i) {
    run.read(20'000);
    if (run.last.kind == Io::Kind::Failed) break;
  }
  require(run.last.kind == Io::Kind::Eof || run.last.kind == Io::Kind::Failed);
  return 0;
}
