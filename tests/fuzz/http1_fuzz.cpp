// SPDX-License-Identifier: Apache-2.0
// The HTTP/1 sniffer with any bytes in any packets. Invariants: no access outside (sanitizers, and
// the loader aborts), never more requests answered than begun, a bounded queue, one end, and the
// same result however a stream that is in order was cut into packets, and whichever path of the
// sniffer looked at them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "tests/unit/http1/sniffer.h"

namespace {

using mesh::test::Side;
using mesh::test::Sniffer;

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const Sniffer& s) {
  const mesh_http1& state = s.state;
  require(state.head - state.tail <= MESH_HTTP1_INFLIGHT);
  std::size_t ends = 0;
  for (const int event : s.events) {
    require(event > MESH_EVENT_SERIES_FULL && event < MESH_EVENT_COUNT);
    if (event != MESH_EVENT_HTTP_ORPHAN_RESPONSE) ++ends;
  }
  require(ends <= 1);
  require(s.active() == (ends == 0));
  require(s.reported.size() <= state.tail);
  for (const auto& reported : s.reported) {
    require(reported.method >= 0 && reported.method < MESH_METHOD_COUNT);
    require(reported.code == 0 || (reported.code >= 100 && reported.code <= 599));
  }
  for (const mesh_http1_dir& d : state.dir) {
    require(d.lock == 0);
    require(d.carry_len <= MESH_HTTP1_CARRY);
    require(d.phase <= MESH_HTTP1_UNTIL_CLOSE && d.line <= MESH_HTTP1_LINE_TAIL_TE);
  }
}

}  // namespace

// Input: operations of two bytes (side, kind, length) and what they need. The bytes of a direction
// are what its operations append; retransmits take from what is there.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Sniffer s(0xffffff00, 0xfffffff0, size % 2 == 0);
  Sniffer whole(0xffffff00, 0xfffffff0, size % 2 == 0);
  Sniffer general(0xffffff00, 0xfffffff0, size % 2 == 0);
  general.has_head = false;
  std::string stream[2];
  bool in_order = true;

  while (size >= 2) {
    const int side = data[0] & 1;
    const int kind = (data[0] >> 1) & 7;
    const std::size_t want = data[1] + (data[0] & 0x80 ? 256u : 0u);
    data += 2;
    size -= 2;
    const std::size_t n = want < size ? want : size;
    const std::string_view fresh(reinterpret_cast<const char*>(data), n);
    std::string& sent = stream[side];
    ++s.now;
    ++whole.now;
    ++general.now;
    switch (kind) {
      case 0: {  // again from somewhere before, and on with new bytes
        const std::size_t from = sent.size() - (sent.size() < want ? sent.size() : want);
        sent += fresh;
        s.packet(static_cast<Side>(side), from, std::string_view(sent).substr(from));
        general.packet(static_cast<Side>(side), from, std::string_view(sent).substr(from));
        whole.packet(static_cast<Side>(side), sent.size() - n, fresh);
        break;
      }
      case 1:  // a gap
        s.packet(static_cast<Side>(side), sent.size() + want, fresh);
        general.packet(static_cast<Side>(side), sent.size() + want, fresh);
        in_order = false;
        break;
      case 2:  // byte by byte
        for (const char c : fresh) {
          s.packet(static_cast<Side>(side), sent.size(), std::string_view(&c, 1));
          general.packet(static_cast<Side>(side), sent.size(), std::string_view(&c, 1));
          sent += c;
        }
        whole.packet(static_cast<Side>(side), sent.size() - n, fresh);
        break;
      default:
        sent += fresh;
        s.packet(static_cast<Side>(side), sent.size() - n, fresh);
        general.packet(static_cast<Side>(side), sent.size() - n, fresh);
        whole.packet(static_cast<Side>(side), sent.size() - n, fresh);
        break;
    }
    data += n;
    size -= n;
    check(s);
    check(general);
    check(whole);
    require(s.reported == general.reported && s.events == general.events);
    require(s.head.lock == 0);
  }
  if (in_order) {
    require(s.reported == whole.reported);
    require(s.events == whole.events);
  }
  s.finish();
  require(s.reported.size() <= s.state.tail && s.state.head - s.state.tail <= MESH_HTTP1_INFLIGHT);
  require(!s.active());
  const std::size_t reported = s.reported.size();
  s.finish();
  require(s.reported.size() == reported);
  return 0;
}
