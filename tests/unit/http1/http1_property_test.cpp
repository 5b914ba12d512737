// SPDX-License-Identifier: Apache-2.0
// Random valid conversations in random packets, with retransmits: exactly the requests that were
// made are reported, in order, and nothing else.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>

#include "tests/unit/http1/sniffer.h"

namespace mesh::test {
namespace {

class Conversation {
 public:
  explicit Conversation(std::uint64_t seed) : random_(seed) {}

  void run() {
    Sniffer s(static_cast<std::uint32_t>(random_()), static_cast<std::uint32_t>(random_()), coin());
    s.has_head = coin();
    const int rounds = pick(1, 12);
    for (int i = 0; i < rounds; ++i) {
      const int burst = pick(1, MESH_HTTP1_INFLIGHT);
      for (int k = 0; k < burst; ++k) add_exchange();
      // All of the burst's requests but a part of the last one, the responses to those, then the
      // rest.
      const std::size_t held =
          coin() ? 0 : std::min(last_request_tail_, stream_[0].size() - sent_[0]);
      deliver(s, 0, stream_[0].size() - held);
      deliver(s, 1, held ? stream_[1].size() - last_response_ : stream_[1].size());
      deliver(s, 0, stream_[0].size());
      deliver(s, 1, stream_[1].size());
    }
    ASSERT_EQ(s.reported, expected_);
    ASSERT_TRUE(s.events.empty()) << s.events.front();
    std::vector<Reported> at_close;
    if (coin()) {
      stream_[0] += "GET /last HTTP/1.1\r\nHost: x\r\n\r\n";
      deliver(s, 0, stream_[0].size());
      const bool answered = coin();
      if (answered) {
        stream_[1] += "HTTP/1.1 200 OK\r\n" + headers() + "\r\n" + body(pick(0, 500));
        deliver(s, 1, stream_[1].size());
      }
      at_close.push_back({MESH_METHOD_GET, answered ? 200 : 0});
    }
    s.reported.clear();
    s.finish();
    ASSERT_EQ(s.reported, at_close);
    ASSERT_TRUE(s.events.empty());
  }

 private:
  bool coin() { return pick(0, 1) == 1; }
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  std::string body(int n) {
    static constexpr std::string_view kBytes("\r\n:0aHTTP/1. \x8a\x0b\0", 16);
    std::string out;
    for (int i = 0; i < n; ++i) out += kBytes[static_cast<std::size_t>(pick(0, 15))];
    return out;
  }

  std::string eol() { return pick(0, 9) ? "\r\n" : "\n"; }

  std::string headers() {
    static constexpr std::array kNames = {"Host",
                                          "C",
                                          "t",
                                          "Cookie",
                                          "Content-Type",
                                          "TE",
                                          "X-Content-Length",
                                          "Connection",
                                          "content-lengthy",
                                          "Transfer-Encodin",
                                          "A"};
    std::string out;
    for (int n = pick(0, 6); n > 0; --n)
      out += std::string(kNames[static_cast<std::size_t>(pick(0, kNames.size() - 1))]) + ": " +
             std::string(static_cast<std::size_t>(pick(0, pick(0, 5) ? 40 : 600)), 'v') + eol();
    return out;
  }

  std::string any_case(std::string text) {
    for (char& c : text)
      if (coin()) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return text;
  }

  std::string with_length(int n) {
    return any_case("content-length:") + std::string(static_cast<std::size_t>(pick(0, 3)), ' ') +
           std::to_string(n) + eol() + headers() + eol() + body(n);
  }

  std::string chunked() {
    std::string out = any_case("transfer-encoding:") + (coin() ? " gzip, " : " ") +
                      any_case("chunked") + eol() + headers() + eol();
    for (int n = pick(0, 5); n > 0; --n) {
      const int size = pick(1, pick(0, 4) ? 20 : 700);
      char hex[16];
      std::snprintf(hex, sizeof(hex), coin() ? "%x" : "%03X", static_cast<unsigned>(size));
      out += hex + std::string(coin() ? "" : ";ext=1") + eol() + body(size) + eol();
    }
    return out + "0" + eol() + headers() + eol();
  }

  std::string some_body() {
    return coin() ? chunked() : with_length(pick(0, pick(0, 3) ? 60 : 3000));
  }

  void add_exchange() {
    static constexpr std::array<std::pair<const char*, int>, 6> kMethods = {
        {{"GET", MESH_METHOD_GET},
         {"POST", MESH_METHOD_POST},
         {"HEAD", MESH_METHOD_HEAD},
         {"OPTIONS", MESH_METHOD_OPTIONS},
         {"REPORT", MESH_METHOD_OTHER},
         {"DELETE", MESH_METHOD_DELETE}}};
    const auto& [name, method] = kMethods[static_cast<std::size_t>(pick(0, 5))];
    std::string request =
        name + std::string(" /") +
        std::string(static_cast<std::size_t>(pick(0, pick(0, 5) ? 30 : 900)), 'p') + " HTTP/1.1" +
        eol();
    const std::size_t line = request.size();
    request += headers() + (coin() ? eol() : some_body());
    stream_[0] += request;
    last_request_tail_ = static_cast<std::size_t>(pick(0, static_cast<int>(request.size() - line)));

    std::string response;
    while (!pick(0, 4)) response += "HTTP/1.1 103 Early Hints" + eol() + headers() + eol();
    static constexpr std::array kCodes = {200, 201, 204, 304, 404, 500, 599};
    const int code = kCodes[static_cast<std::size_t>(pick(0, kCodes.size() - 1))];
    response +=
        "HTTP/1.1 " + std::to_string(code) + (coin() ? " Some Reason" : "") + eol() + headers();
    if (code == 204 || code == 304 || method == MESH_METHOD_HEAD)
      response += (coin() ? "Content-Length: 123" + eol() : std::string()) + eol();
    else
      response += some_body();
    last_response_ = response.size();
    stream_[1] += response;
    expected_.push_back({method, code});
  }

  // Sends what is left up to `end`, in packets that may begin in bytes already sent, or be
  // repeated.
  void deliver(Sniffer& s, int side, std::size_t end) {
    const int scale = std::array{1, 8, 60, 300, 3000, 60'000}[static_cast<std::size_t>(pick(0, 5))];
    while (sent_[side] < end) {
      const std::size_t to = std::min(end, sent_[side] + static_cast<std::size_t>(pick(1, scale)));
      std::size_t from = sent_[side];
      if (!pick(0, 3)) from -= std::min(from, static_cast<std::size_t>(pick(0, 200)));
      for (int times = pick(0, 5) ? 1 : 2; times > 0; --times)
        s.packet(static_cast<Side>(side), from,
                 std::string_view(stream_[side]).substr(from, to - from));
      sent_[side] = to;
    }
  }

  std::mt19937_64 random_;
  std::string stream_[2];
  std::size_t sent_[2] = {0, 0};
  std::size_t last_request_tail_ = 0;
  std::size_t last_response_ = 0;
  std::vector<Reported> expected_;
};

TEST(Http1Property, RandomConversationsAreReportedExactly) {
  for (std::uint64_t seed = 0; seed < 600; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Conversation(seed).run();
    if (HasFatalFailure()) return;
  }
}

// Packets that begin with a message, of valid parts in any order and then perhaps with some bytes
// changed: what the common case makes of them is what the general path makes of them. That path is
// the reference: it looks for every line end and knows nothing of where a packet ends. Heads end
// near where a load of them ends, bodies hold what looks like the end of a head, and what is left
// in the buffer from the message before looks like a part of this one.
class Pair {
 public:
  explicit Pair(std::uint64_t seed) : random_(seed) {}

  void run() {
    Sniffer fast, general;
    general.has_head = false;
    for (int i = 0; i < 12 && fast.active(); ++i) {
      for (const Side side : {Side::kRequest, Side::kResponse}) {
        const std::string packet = message(side);
        SCOPED_TRACE(packet);
        fast.send(side, packet);
        general.send(side, packet);
        ASSERT_EQ(fast.reported, general.reported);
        ASSERT_EQ(fast.events, general.events);
        ASSERT_EQ(fast.state.head, general.state.head);
        ASSERT_EQ(fast.state.tail, general.state.tail);
        ASSERT_EQ(fast.active(), general.active());
        if (!fast.active()) break;
        const mesh_http1_dir& a = fast.state.dir[static_cast<int>(side)];
        const mesh_http1_dir& b = general.state.dir[static_cast<int>(side)];
        ASSERT_EQ(a.phase, b.phase);
        ASSERT_EQ(a.line, b.line);
        ASSERT_EQ(a.carry_len, b.carry_len);
        ASSERT_EQ(a.next_seq, b.next_seq);
        if (a.phase != MESH_HTTP1_START) {
          ASSERT_EQ(a.flags, b.flags);
        }
        if (a.phase == MESH_HTTP1_BODY) {
          ASSERT_EQ(a.remaining, b.remaining);
        }
        if (side == Side::kRequest) {
          ASSERT_EQ(fast.state.method[(fast.state.head - 1) % MESH_HTTP1_INFLIGHT],
                    general.state.method[(general.state.head - 1) % MESH_HTTP1_INFLIGHT]);
        }
      }
    }
    common_ += fast.loaded < general.loaded;
  }

  // How often the common case looked at less than the general path.
  static inline int common_ = 0;

 private:
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  template <typename T>
  const auto& any(const T& all) {
    return all[static_cast<std::size_t>(pick(0, static_cast<int>(std::size(all)) - 1))];
  }

  std::string message(Side side) {
    static constexpr std::array kRequests = {"GET / HTTP/1.1\r\n", "POST /a/b?c=d HTTP/1.1\r\n",
                                             "HEAD /x HTTP/1.0\r\n", "A / HTTP/1.1\r\n"};
    static constexpr std::array kResponses = {"HTTP/1.1 200 OK\r\n", "HTTP/1.1 204 No Content\r\n",
                                              "HTTP/1.1 304 x\r\n", "HTTP/1.1 503\r\n",
                                              "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 x\r\n"};
    static constexpr std::array kLines = {"Content-Type: text/plain\r\n",
                                          "Transfer-Encoding: chunked\r\n",
                                          "content-length: 7\r\n",
                                          "Content-Length:5\r\n",
                                          "Accept: */*\r\n",
                                          "A:\r\n",
                                          "X: \xc3\xa4\r\n",
                                          "Y:\tz\r\n",
                                          "\r\n"};
    std::string out = side == Side::kRequest ? any(kRequests) : any(kResponses);
    // Some heads end just where the first, the second or the last load of them does.
    static constexpr std::array kEnds = {0, 0, 128, 384, 512};
    const int end = any(kEnds) + pick(-24, 4);
    const std::string length = pick(0, 3) ? "Content-Length: " + std::to_string(pick(0, 30)) : "";
    if (pick(0, 1) && !length.empty()) out += length + "\r\n";
    for (int n = pick(0, 4); n > 0; --n)
      if (!pick(0, 5)) out += any(kLines);
    if (static_cast<int>(out.size()) + 5 < end)
      out += "P: " + std::string(static_cast<std::size_t>(end) - out.size() - 5, 'p') + "\r\n";
    if (!length.empty() && !pick(0, 3)) out += length + "\r\n";
    out += "\r\n";
    static constexpr std::string_view kBody("ab\r\n\r\nGET / HTTP/1.1\r\n\r\n\0\xff", 26);
    out += kBody.substr(0, static_cast<std::size_t>(pick(0, 26)));
    if (!pick(0, 3)) {
      static constexpr std::string_view kOdd("\r\n \0\x1f\x9f\xa0\xff:C-t", 12);
      for (int n = pick(1, 3); n > 0; --n)
        out[static_cast<std::size_t>(pick(0, static_cast<int>(out.size()) - 1))] = any(kOdd);
    }
    if (!pick(0, 7)) out.resize(static_cast<std::size_t>(pick(1, static_cast<int>(out.size()))));
    return out;
  }

  std::mt19937_64 random_;
};

TEST(Http1Property, TheCommonCaseDoesWhatTheGeneralPathDoes) {
  for (std::uint64_t seed = 0; seed < 20'000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Pair(seed).run();
    if (testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GT(Pair::common_, 500);
}

}  // namespace
}  // namespace mesh::test
