// SPDX-License-Identifier: Apache-2.0
// The sniffer's programs in the kernel: the verifier takes them at a bounded cost, every packet
// passes, and packets of both families end up in the series.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http1_run.skel.h"
#include "lib/http1.h"
#include "mesh/flow.h"

namespace {

constexpr std::uint32_t kMaxVerifiedInsns = 90'000;
constexpr std::uint32_t kRequestSeq = 0xfffffff0;  // wraps inside the first request
constexpr std::uint32_t kResponseSeq = 4000;

struct Destroy {
  void operator()(http1_run_bpf* skel) const { http1_run_bpf::destroy(skel); }
};
using Skel = std::unique_ptr<http1_run_bpf, Destroy>;

struct Headers {
  bool v6 = false;
  int ip_options = 0;   // words
  int tcp_options = 0;  // words
  std::uint8_t flags = 0x18;
  std::uint8_t protocol = IPPROTO_TCP;
};

// A frame as BPF_PROG_TEST_RUN wants it: with an Ethernet header, which the program does not see.
std::string frame(std::uint32_t seq, std::string_view payload, const Headers& h = {}) {
  std::string out(12, '\0');
  out += h.v6 ? "\x86\xdd" : std::string("\x08\x00", 2);
  if (h.v6) {
    out += std::string("\x60\0\0\0\0\0", 6) + static_cast<char>(h.protocol) + '\x40' +
           std::string(32, '\1');
  } else {
    out += static_cast<char>(0x45 + h.ip_options) + std::string(8, '\0') +
           static_cast<char>(h.protocol) + std::string(2, '\0') +
           std::string("\x0a\0\0\1\x0a\0\0\2", 8) +
           std::string(static_cast<std::size_t>(h.ip_options) * 4, '\1');
  }
  const std::uint32_t wire_seq = htonl(seq);
  out += std::string("\x9c\x40\x1f\x90", 4);
  out.append(reinterpret_cast<const char*>(&wire_seq), 4);
  out += std::string(4, '\0') + static_cast<char>((5 + h.tcp_options) << 4) +
         static_cast<char>(h.flags) + std::string(6, '\0') +
         std::string(static_cast<std::size_t>(h.tcp_options) * 4, '\1');
  return out + std::string(payload);
}

class Http1Run : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) {
      ASSERT_FALSE(std::getenv("MESH_REQUIRE_ROOT")) << "needs root";
      GTEST_SKIP() << "needs root";
    }
  }

  void load(std::uint32_t max_series = 0) {
    skel_.reset(http1_run_bpf::open());
    ASSERT_TRUE(skel_);
    if (max_series) bpf_map__set_max_entries(skel_->maps.mesh_http_requests, max_series);
    ASSERT_EQ(http1_run_bpf::load(skel_.get()), 0);
    start(true);
  }

  // A new connection.
  void start(bool is_client) {
    mesh_http1_sock sock{};
    mesh_http1_init(&sock.http, is_client, is_client ? kRequestSeq : kResponseSeq,
                    is_client ? kResponseSeq : kRequestSeq, &series_);
    set(sock);
  }

  void set(const mesh_http1_sock& sock) {
    const std::uint32_t zero = 0;
    ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skel_->maps.mesh_test_http1), &zero, &sock, BPF_ANY),
              0);
  }

  mesh_http1_sock get() {
    mesh_http1_sock sock{};
    const std::uint32_t zero = 0;
    EXPECT_EQ(bpf_map_lookup_elem(bpf_map__fd(skel_->maps.mesh_test_http1), &zero, &sock), 0);
    return sock;
  }

  // What is pending goes into the series, as at a scrape.
  void fold() { EXPECT_EQ(run(skel_->progs.mesh_test_fold, frame(0, "")), 1u); }

  // One request and its answer, behind those before.
  void exchange(const std::string& method, int code) {
    const std::string request = method + " / HTTP/1.1\r\n\r\n";
    const std::string response =
        "HTTP/1.1 " + std::to_string(code) + " x\r\nContent-Length: 0\r\n\r\n";
    const mesh_http1 now = get().http;
    out(now.dir[MESH_HTTP1_REQUEST].next_seq, request);
    in(now.dir[MESH_HTTP1_RESPONSE].next_seq, response);
  }

  // What the program returned; nothing if the kernel does not make such a packet.
  std::optional<std::uint32_t> run(bpf_program* program, const std::string& packet) {
    LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = packet.data(),
                .data_size_in = static_cast<std::uint32_t>(packet.size()));
    if (bpf_prog_test_run_opts(bpf_program__fd(program), &opts) != 0) return std::nullopt;
    return opts.retval;
  }

  void out(std::uint32_t seq, std::string_view payload, const Headers& h = {}) {
    EXPECT_EQ(run(skel_->progs.mesh_test_egress, frame(seq, payload, h)), 1u);
  }
  void in(std::uint32_t seq, std::string_view payload, const Headers& h = {}) {
    EXPECT_EQ(run(skel_->progs.mesh_test_ingress, frame(seq, payload, h)), 1u);
  }

  template <typename T>
  std::vector<T> per_cpu(bpf_map* map, const void* key) {
    std::vector<T> values(static_cast<std::size_t>(libbpf_num_possible_cpus()));
    if (bpf_map_lookup_elem(bpf_map__fd(map), key, values.data()) != 0) return {};
    return values;
  }

  std::uint64_t event(std::uint32_t id) {
    const auto values = per_cpu<std::uint64_t>(skel_->maps.mesh_events, &id);
    return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
  }

  // In the series.
  std::uint64_t requests(std::uint8_t method, std::uint16_t code) {
    return requests(series_, method, code);
  }
  std::uint64_t requests(const mesh_series& series, std::uint8_t method, std::uint16_t code) {
    const mesh_http_key key{series, code, method, 0};
    const auto values = per_cpu<std::uint64_t>(skel_->maps.mesh_http_requests, &key);
    return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
  }

  std::uint64_t latencies() { return latencies(series_); }
  std::uint64_t latencies(const mesh_series& series) {
    std::uint64_t sum = 0;
    for (const mesh_latency& l : per_cpu<mesh_latency>(skel_->maps.mesh_http_latency, &series))
      sum += std::accumulate(std::begin(l.bucket), std::end(l.bucket), std::uint64_t{0});
    return sum;
  }

  std::uint32_t status() { return get().http.status; }

  // The other reporter's side of a connection inside the node, for which this one sniffs.
  void set_peer(std::uint32_t peer) {
    mesh_http1_sock sock = get();
    sock.http.peer = peer;
    set(sock);
  }

  void set_admit(std::uint32_t sniffer, std::uint32_t destination) {
    const mesh_tuple client{};
    const mesh_admit admit{1, 2, 0, 16, MESH_PATH_LOCAL, sniffer, destination};
    ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skel_->maps.mesh_admits), &client, &admit, BPF_ANY),
              0);
  }

  mesh_admit admit() {
    const mesh_tuple client{};
    mesh_admit admit{};
    EXPECT_EQ(bpf_map_lookup_elem(bpf_map__fd(skel_->maps.mesh_admits), &client, &admit), 0);
    return admit;
  }

  Skel skel_;
  const mesh_series series_{16, 17, MESH_REPORTER_SOURCE, MESH_PATH_LOCAL, 0};
  // The label of the server's series may be another one than the client's.
  static constexpr std::uint32_t kPeer = 18;
  const mesh_series peer_series_{16, kPeer, MESH_REPORTER_DESTINATION, MESH_PATH_LOCAL, 0};
};

const std::string kPost = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
const std::string kOk = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

TEST_F(Http1Run, TheVerifierTakesThemAtABoundedCost) {
  load();
  for (bpf_program* program : {skel_->progs.mesh_skb_egress, skel_->progs.mesh_skb_ingress}) {
    bpf_prog_info info{};
    std::uint32_t len = sizeof(info);
    ASSERT_EQ(bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &len), 0);
    RecordProperty(std::string("verified_insns_") + bpf_program__name(program),
                   static_cast<int>(info.verified_insns));
    EXPECT_GT(info.verified_insns, 0u);
    EXPECT_LT(info.verified_insns, kMaxVerifiedInsns) << bpf_program__name(program);
  }
}

TEST_F(Http1Run, EveryPacketPasses) {
  load();
  Headers all;
  std::vector<std::string> packets;
  const std::string whole4 = frame(kRequestSeq, kPost, {.ip_options = 3, .tcp_options = 5});
  const std::string whole6 = frame(kRequestSeq, kPost, {.v6 = true});
  for (const std::string& whole : {whole4, whole6})
    for (std::size_t n = 14; n <= whole.size(); ++n) packets.push_back(whole.substr(0, n));
  for (int version = 0; version < 16; ++version) {
    std::string odd = whole4;
    odd[14] = static_cast<char>(version << 4 | 5);
    packets.push_back(odd);
    odd[14] = static_cast<char>(0x40 | version);  // every header length
    packets.push_back(odd);
    odd = whole6;
    odd[14 + 40 + 12] = static_cast<char>(version << 4);  // every TCP header length
    packets.push_back(odd);
  }
  packets.push_back(std::string(12, '\0') + "\x08\x06" + std::string(28, '\1'));  // ARP
  std::size_t ran = 0;
  for (const std::string& packet : packets) {
    for (bpf_program* program : {skel_->progs.mesh_skb_egress, skel_->progs.mesh_skb_ingress,
                                 skel_->progs.mesh_test_egress, skel_->progs.mesh_test_ingress}) {
      start(ran % 2 == 0);
      const auto verdict = run(program, packet);
      if (!verdict) continue;  // the kernel refuses frames without a network header
      EXPECT_EQ(*verdict, 1u);
      ++ran;
    }
  }
  EXPECT_GT(ran, packets.size() * 3);
}

TEST_F(Http1Run, CountsARequestOfEachFamily) {
  load();
  for (bool v6 : {false, true}) {
    for (bool is_client : {true, false}) {
      start(is_client);
      const Headers h{.v6 = v6, .ip_options = v6 ? 0 : 2, .tcp_options = 3};
      const auto request = [&](std::uint32_t seq, std::string_view bytes) {
        is_client ? out(seq, bytes, h) : in(seq, bytes, h);
      };
      const auto response = [&](std::uint32_t seq, std::string_view bytes) {
        is_client ? in(seq, bytes, h) : out(seq, bytes, h);
      };
      const std::uint64_t before = requests(MESH_METHOD_POST, 200);
      const auto split = std::string_view(kPost);
      request(kRequestSeq, split.substr(0, 20));
      request(kRequestSeq, split.substr(0, 20));        // again
      request(kRequestSeq + 10, split.substr(10, 20));  // overlap
      request(kRequestSeq + 30, split.substr(30));
      request(kRequestSeq + 55, "");  // an acknowledgement
      response(kResponseSeq, kOk);
      fold();
      EXPECT_EQ(requests(MESH_METHOD_POST, 200), before + 1);
      EXPECT_EQ(latencies(), before + 1);
      EXPECT_EQ(status(), MESH_HTTP1_ACTIVE);
    }
  }
}

TEST_F(Http1Run, LongHeadersSpanWindows) {
  load();
  std::string request = "GET /" + std::string(300, 'p') + " HTTP/1.1\r\n";
  for (int i = 0; i < 50; ++i)
    request += "X-Header: " + std::string(static_cast<std::size_t>(i), 'v') + "\r\n";
  out(kRequestSeq, request + "\r\n");
  in(kResponseSeq,
     "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  fold();
  EXPECT_EQ(requests(MESH_METHOD_GET, 404), 1u);
}

TEST_F(Http1Run, EndsWithItsEvent) {
  load();
  const auto ends = [&](std::uint32_t id, const auto& traffic) {
    start(true);
    const std::uint64_t before = event(id);
    traffic();
    EXPECT_EQ(event(id), before + 1) << id;
    EXPECT_EQ(status(), MESH_HTTP1_ENDED) << id;
    out(kRequestSeq, kPost);
    EXPECT_EQ(event(id), before + 1) << id;
  };
  ends(MESH_EVENT_HTTP_GAP, [&] { out(kRequestSeq + 1, kPost); });
  ends(MESH_EVENT_HTTP_GAP, [&] { out(kRequestSeq, kPost, {.v6 = true, .protocol = 0}); });
  ends(MESH_EVENT_HTTP_MALFORMED, [&] { out(kRequestSeq, "\x16\x03\x01 not HTTP"); });
  ends(MESH_EVENT_HTTP_PIPELINE_FULL, [&] {
    std::string many;
    for (int i = 0; i <= MESH_HTTP1_INFLIGHT; ++i) many += "GET / HTTP/1.1\r\n\r\n";
    out(kRequestSeq, many);
  });
  ends(MESH_EVENT_HTTP_UPGRADED, [&] {
    out(kRequestSeq, "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n");
    in(kResponseSeq, "HTTP/1.1 101 Switching Protocols\r\n\r\n");
  });
  fold();
  EXPECT_EQ(requests(MESH_METHOD_GET, 101), 1u);
}

// As packets of a large answer arrive that were sent by two CPUs.
TEST_F(Http1Run, PacketsOfABodyMayOvertakeEachOther) {
  load();
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n";
  const std::string part(1000, 'b');
  const auto body = kResponseSeq + static_cast<std::uint32_t>(head.size());
  for (std::uint32_t order = 0; order < 6; ++order) {
    start(true);
    std::array<std::uint32_t, 3> at{0, 1000, 2000};
    for (std::uint32_t i = 0; i < order; ++i) std::next_permutation(at.begin(), at.end());
    out(kRequestSeq, "GET / HTTP/1.1\r\n\r\n");
    in(kResponseSeq, head);
    for (const auto offset : at) in(body + offset, part);
    out(kRequestSeq + 18, "GET / HTTP/1.1\r\n\r\n");
    in(body + 3000, head + part + part + part);
    EXPECT_EQ(status(), MESH_HTTP1_ACTIVE) << order;
    fold();
    EXPECT_EQ(requests(MESH_METHOD_GET, 200), 2 * (order + 1)) << order;
  }
  EXPECT_EQ(event(MESH_EVENT_HTTP_GAP), 0u);
}

TEST_F(Http1Run, AResetIsNotPayload) {
  load();
  out(kRequestSeq, "reset for a reason", {.flags = 0x14});
  EXPECT_EQ(status(), MESH_HTTP1_ACTIVE);
}

// Whatever is in the head's last bytes, wherever a load of it ends.
TEST_F(Http1Run, HeadsOfEverySize) {
  load();
  for (std::size_t pad = 0; pad < 560; ++pad) {
    start(true);
    const std::string line = "X: " + std::string(pad, 'v') + "\r\n";
    out(kRequestSeq, "PUT / HTTP/1.1\r\n" + line + "Content-Length: 3\r\n\r\nabc");
    in(kResponseSeq, "HTTP/1.1 201 Created\r\n" + line + "Content-Length: 3\r\n\r\nabc");
    EXPECT_EQ(get().pending.requests[0],
              std::uint64_t{MESH_HTTP1_KIND(MESH_METHOD_PUT, 201)} << 32 | 1)
        << pad;
  }
}

TEST_F(Http1Run, RequestsArePendingUntilTheyAreFolded) {
  load();
  for (int i = 0; i < 5; ++i) exchange("GET", i % 2 ? 200 : 404);
  EXPECT_EQ(requests(MESH_METHOD_GET, 200) + requests(MESH_METHOD_GET, 404) + latencies(), 0u);
  fold();
  for (int again = 0; again < 2; ++again) {
    EXPECT_EQ(requests(MESH_METHOD_GET, 200), 2u);
    EXPECT_EQ(requests(MESH_METHOD_GET, 404), 3u);
    EXPECT_EQ(latencies(), 5u);
    fold();  // adds nothing
  }
  exchange("GET", 200);
  fold();
  EXPECT_EQ(requests(MESH_METHOD_GET, 200), 3u);
  EXPECT_EQ(latencies(), 6u);
}

TEST_F(Http1Run, AFurtherKindOfAnswerGoesToItsSeriesAtOnce) {
  load();
  for (int code = 200; code < 200 + MESH_HTTP1_KINDS; ++code) exchange("GET", code);
  exchange("DELETE", 200);
  exchange("GET", 200);
  EXPECT_EQ(requests(MESH_METHOD_DELETE, 200), 1u);
  EXPECT_EQ(latencies(), 1u);
  EXPECT_EQ(requests(MESH_METHOD_GET, 200), 0u);
  fold();
  EXPECT_EQ(requests(MESH_METHOD_GET, 200), 2u);
  EXPECT_EQ(latencies(), MESH_HTTP1_KINDS + 2u);
  exchange("DELETE", 200);  // there is room again
  EXPECT_EQ(requests(MESH_METHOD_DELETE, 200), 1u);
}

TEST_F(Http1Run, AnAnswerAfterTheEndIsFoldedAtOnce) {
  load();
  exchange("GET", 200);
  EXPECT_EQ(run(skel_->progs.mesh_test_late, frame(0, "")), 1u);
  EXPECT_EQ(requests(MESH_METHOD_GET, 200), 2u);
  EXPECT_EQ(latencies(), 2u);
}

TEST_F(Http1Run, ManyPendingRequestsAreFoldedBeforeACountRunsOver) {
  load();
  exchange("GET", 200);
  constexpr std::uint32_t kMany = 1u << 24;
  mesh_http1_sock sock = get();
  sock.pending.requests[0] += kMany - 1;
  for (std::uint32_t& bucket : sock.pending.bucket)
    if (bucket) bucket = kMany;
  set(sock);
  for (int i = 0; i < 1000 && latencies() == 0; ++i) exchange("GET", 200);
  EXPECT_GT(requests(MESH_METHOD_GET, 200), kMany);
  EXPECT_EQ(requests(MESH_METHOD_GET, 200), latencies());
}

TEST_F(Http1Run, OneSnifferCountsForBothReporters) {
  load();
  set_peer(kPeer);
  for (int i = 0; i < 5; ++i) exchange("GET", i % 2 ? 200 : 404);
  for (int again = 0; again < 2; ++again) {
    fold();
    for (const mesh_series& series : {series_, peer_series_}) {
      EXPECT_EQ(requests(series, MESH_METHOD_GET, 200), 2u);
      EXPECT_EQ(requests(series, MESH_METHOD_GET, 404), 3u);
      EXPECT_EQ(latencies(series), 5u);
    }
  }
  for (int code = 200; code < 200 + MESH_HTTP1_KINDS; ++code) exchange("PUT", code);
  exchange("DELETE", 200);  // at once
  EXPECT_EQ(run(skel_->progs.mesh_test_late, frame(0, "")), 1u);
  for (const mesh_series& series : {series_, peer_series_}) {
    EXPECT_EQ(requests(series, MESH_METHOD_DELETE, 200), 1u);
    EXPECT_EQ(requests(series, MESH_METHOD_GET, 200), 3u);
  }
}

TEST_F(Http1Run, AFullMapCostsEachReporterItsSample) {
  load(1);
  set_peer(kPeer);
  exchange("GET", 200);
  exchange("GET", 200);
  fold();
  EXPECT_EQ(requests(MESH_METHOD_GET, 200), 2u);
  EXPECT_EQ(requests(peer_series_, MESH_METHOD_GET, 200), 0u);
  EXPECT_EQ(event(MESH_EVENT_SERIES_FULL), 2u);
  EXPECT_EQ(latencies(peer_series_), 2u);
}

TEST_F(Http1Run, TheTwoEndsAgreeOnOneSniffer) {
  load();
  const auto meet = [&] { EXPECT_EQ(run(skel_->progs.mesh_test_meet, frame(0, "")), 1u); };
  const auto offer = [&] { EXPECT_EQ(run(skel_->progs.mesh_test_offer, frame(0, "")), 1u); };
  const auto accepts = [&] { return run(skel_->progs.mesh_test_accept, frame(0, "")); };
  offer();  // without a record it stays alone
  EXPECT_EQ(get().http.peer, MESH_HTTP1_ALONE);

  set_admit(MESH_ADMIT_SNIFFER_NONE, 0);
  EXPECT_EQ(accepts(), 0u);  // nobody offers: the server's side sniffs for itself
  EXPECT_EQ(admit().sniffer, MESH_ADMIT_SNIFFER_NONE);
  offer();  // afterwards, as with Fast Open
  EXPECT_EQ(get().http.peer, MESH_HTTP1_UNMET);
  meet();
  EXPECT_EQ(get().http.peer, MESH_HTTP1_ALONE);

  start(true);
  set_admit(MESH_ADMIT_SNIFFER_NONE, 0);
  offer();
  EXPECT_EQ(accepts(), 1u);
  EXPECT_EQ(admit().sniffer, MESH_ADMIT_SNIFFER_BOTH);
  EXPECT_EQ(admit().destination, kPeer);
  meet();
  EXPECT_EQ(get().http.peer, kPeer);
  set_admit(MESH_ADMIT_SNIFFER_CLIENT, 0);
  meet();  // once, for good
  EXPECT_EQ(get().http.peer, kPeer);
}

TEST_F(Http1Run, AFullMapCostsTheSampleAndIsCounted) {
  load(1);
  out(kRequestSeq, kPost + "GET / HTTP/1.1\r\n\r\n");
  in(kResponseSeq, kOk + kOk);
  fold();
  EXPECT_EQ(requests(MESH_METHOD_POST, 200), 1u);
  EXPECT_EQ(requests(MESH_METHOD_GET, 200), 0u);
  EXPECT_EQ(event(MESH_EVENT_SERIES_FULL), 1u);
  EXPECT_EQ(latencies(), 2u);
}

}  // namespace
