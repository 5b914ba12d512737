// SPDX-License-Identifier: Apache-2.0
// What all sources have in common: which services may have an identity, when each is due, work in
// slices so that the control thread is never busy for long, ends, waiting requests, reports.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "agent/identity/source.h"

namespace mesh::identity {

using Time = std::chrono::system_clock::time_point;
inline constexpr Time kNever = Time::max();

class SourceBase : public Source {
 public:
  struct BaseOptions {
    std::chrono::milliseconds poll;
    std::size_t max_identities;
    std::function<Time()> now;  // null: the system clock
  };

  SourceBase(boost::asio::io_context& io, BaseOptions options);
  ~SourceBase() override;
  SourceBase(const SourceBase&) = delete;
  SourceBase& operator=(const SourceBase&) = delete;

  Status start(Handlers handlers) final;
  void stop() final;
  void allow(const std::vector<std::string>& services) final;
  void want(const std::string& service) final;
  [[nodiscard]] const std::string& trust_domain() const final { return trust_domain_; }
  [[nodiscard]] const Counters& counters() const final { return counters_; }
  [[nodiscard]] const std::shared_ptr<Directory>& directory() const final { return directory_; }

 protected:
  struct Made {
    ktls::SvidPtr svid;     // null: the service has no identity, which is no failure
    Time renew_at{kNever};  // the end is looked after separately
    std::string why;        // when there is none
  };

  // First reading of the files; sets the bundle and trust_domain_.
  virtual Status load() = 0;
  // Looks whether files changed, every `poll`. May call set_bundle, make_again, report.
  virtual void look() = 0;
  // A first or a renewed SVID, in well under a millisecond.
  virtual Result<Made> make(const std::string& service) = 0;

  // The service is not this node's any more.
  virtual void forget(const std::string& /*service*/) {}

  [[nodiscard]] Time now() const { return options_.now(); }
  void set_bundle(ktls::TrustBundlePtr bundle);
  void set_trust_domain(std::string name) { trust_domain_ = std::move(name); }
  // Due at once: one service if somebody wants it, or every one that is wanted.
  void make_again(const std::string& service);
  void make_all_again();
  // The state of one concern ("files", "end"); empty when it is good.
  void report(const std::string& concern, const std::string& what);
  Counters& count() { return counters_; }

 private:
  struct Entry {  // a service that was asked for
    ktls::SvidPtr svid;
    Time renew_at = kNever;
    std::string why;      // there is no SVID
    bool queued = false;  // in queue_
  };
  using Entries = std::map<std::string, Entry>;

  void enqueue(const std::string& service, Entry& entry);
  void pump();
  void make_one(const std::string& service, Entry& entry);
  void made(const std::string& service, Entry& entry, Made made);
  void failed(const std::string& service, Entry& entry, const std::string& why);
  void lose(const std::string& service, Entry& entry, const std::string& why);
  void refuse(const std::string& service, const std::string& why);
  void arm();
  void tick();

  boost::asio::io_context& io_;
  BaseOptions options_;
  boost::asio::steady_timer timer_;
  Handlers handlers_;
  std::shared_ptr<Directory> directory_ = std::make_shared<Directory>();
  std::shared_ptr<char> alive_ = std::make_shared<char>();  // callbacks look before they touch us
  std::set<std::string, std::less<>> allowed_;
  Entries entries_;
  std::deque<std::string> queue_;
  std::map<std::string, std::string> problems_;
  std::string reported_;
  std::string trust_domain_;
  Counters counters_;
  Time last_tick_{};
  std::chrono::steady_clock::time_point next_look_{};
  bool running_ = false;
  bool pumping_ = false;
};

}  // namespace mesh::identity
