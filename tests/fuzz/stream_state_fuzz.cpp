// SPDX-License-Identifier: Apache-2.0
// Any bytes as the state of a stream, as a broken predecessor could send them. Invariants: what is
// accepted can be imported, says the same when it is written again, and reads and writes in bounds.
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "agent/base/unique_fd.h"
#include "ktls/stream.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mesh::ktls;
  auto state = parse_stream_state({data, size});
  if (!state) return 0;
  const std::vector<std::uint8_t> again = serialize(*state);
  require(std::vector<std::uint8_t>(data, data + size) == again);
  if (state->kernel) return 0;  // would talk to a socket that has keys
  auto stream = import_stream(std::move(*state));
  require(stream.has_value());
  int fds[2];
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
  const mesh::UniqueFd ours(fds[0]);
  const mesh::UniqueFd theirs(fds[1]);
  std::array<std::byte, 20'000> into;
  for (int i = 0; i < 3; ++i) (void)(*stream)->read(ours.get(), into);
  (void)(*stream)->write(ours.get(), into);
  (void)(*stream)->close_notify(ours.get());
  require(parse_stream_state(serialize((*stream)->export_state())).has_value());
  return 0;
}
