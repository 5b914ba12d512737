// SPDX-License-Identifier: Apache-2.0
#include "agent/catalog/directory.h"

#include <sys/inotify.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cstring>
#include <optional>
#include <utility>

#include "agent/base/log.h"
#include "agent/base/unique_fd.h"
#include "agent/catalog/directory_pass.h"
#include "agent/catalog/files.h"

namespace mesh::catalog {
namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

// Names that are not configuration matter too: "..data" is what a ConfigMap update renames.
constexpr std::uint32_t kWatchMask = IN_CREATE | IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB |
                                     IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF |
                                     IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK;
constexpr std::uint32_t kContentEvents = IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB;

// A pass that finds files changing is repeated; after this many in a row it is reported.
constexpr unsigned kMaxUnstable = 10;

}  // namespace

// Lives as long as a handler of it is pending; everything but run() of the pass is on the io
// thread.
class DirectorySource::Watcher : public std::enable_shared_from_this<Watcher> {
 public:
  Watcher(asio::io_context& io, DirectoryOptions options, VipAllocator vips)
      : io_(io),
        options_(std::move(options)),
        pass_(options_.directory, std::move(vips), options_.own),
        inotify_(io),
        debounce_(io),
        poll_(io) {}

  Status start(Handlers handlers) {
    handlers_ = std::move(handlers);
    UniqueFd fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!fd) {
      int error = errno;
      return fail_errno(
          error, error == EMFILE ? "inotify (see fs.inotify.max_user_instances)" : "inotify");
    }
    boost::system::error_code code;
    (void)inotify_.assign(fd.get(), code);  // the outcome is in `code`
    if (code) return fail_errno(code.value(), "inotify");
    (void)fd.release();
    if (int error = watch(); error != 0) {
      stop();
      return fail_errno(error, error == ENOSPC ? "watch " + options_.directory +
                                                     " (see fs.inotify.max_user_watches)"
                                               : "watch " + options_.directory);
    }
    try {
      worker_.emplace(1);
    } catch (const std::exception& error) {
      stop();
      return fail("watch {}: cannot start a thread: {}", options_.directory, error.what());
    }
    read_events();
    arm_poll();
    forced_ = true;
    request();
    return {};
  }

  void stop() {
    stopped_ = true;
    boost::system::error_code ignored;  // closing: nothing is left to do about a failure
    (void)inotify_.close(ignored);
    debounce_.cancel();
    poll_.cancel();
    handlers_ = {};
  }

  // Outside stop(), so that a handler may call stop() without waiting for a pass.
  void join() { worker_.reset(); }

  [[nodiscard]] const DirectoryStats& stats() const { return stats_; }

 private:
  // Watches what the path names now: the same watch as before unless the directory was replaced.
  int watch() {
    int wd = ::inotify_add_watch(inotify_.native_handle(), options_.directory.c_str(), kWatchMask);
    int error = wd < 0 ? errno : 0;
    if (wd == watch_) return error;
    drop_watch();
    watch_ = wd;
    forced_ = true;
    return error;
  }

  void drop_watch() {
    // Fails when the kernel has dropped the watch already, which is as good.
    if (watch_ >= 0) (void)::inotify_rm_watch(inotify_.native_handle(), watch_);
    watch_ = -1;
  }

  void read_events() {
    inotify_.async_read_some(
        asio::buffer(buffer_),
        [self = shared_from_this()](const boost::system::error_code& code, std::size_t size) {
          if (self->stopped_) return;
          if (code) {
            // Not known to happen. Polling goes on, so changes are still seen, only later.
            log::debug("inotify: {}", code.message());
            return;
          }
          self->on_events(size);
          self->read_events();
        });
  }

  void on_events(std::size_t size) {
    bool relevant = false;
    for (std::size_t offset = 0; offset + sizeof(inotify_event) <= size;) {
      inotify_event event;
      std::memcpy(&event, buffer_.data() + offset, sizeof event);
      std::string_view name(buffer_.data() + offset + sizeof event, event.len);
      name = name.substr(0, name.find('\0'));
      offset += sizeof event + event.len;
      relevant |= on_event(event, name);
    }
    if (!relevant) return;
    forced_ = true;
    changed();
  }

  bool on_event(const inotify_event& event, std::string_view name) {
    if ((event.mask & IN_Q_OVERFLOW) != 0) {
      ++stats_.overflows;
      return true;  // what was lost is found by reading everything
    }
    if (event.wd != watch_) return false;  // of a watch that was dropped
    if ((event.mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED)) != 0) {
      if ((event.mask & IN_IGNORED) != 0) watch_ = -1;
      drop_watch();
      arm_poll();  // from now on at the pace of `retry`
      return true;
    }
    // Writes into files that are not configuration say nothing; any name may be a symlink's target.
    return (event.mask & kContentEvents) == 0 || name.empty() || is_config_name(name);
  }

  // Waits for the writer to finish, within bounds.
  void changed() {
    auto now = Clock::now();
    if (!first_event_) first_event_ = now;
    debounce_.expires_at(std::min(now + options_.quiet, *first_event_ + options_.max_delay));
    debounce_.async_wait([self = shared_from_this()](const boost::system::error_code& code) {
      if (code || self->stopped_) return;
      self->first_event_.reset();
      self->request();
    });
  }

  void arm_poll() {
    bool soon = watch_ < 0 || unstable_ > 0;
    poll_.expires_after(soon ? options_.retry : options_.poll);
    poll_.async_wait([self = shared_from_this()](const boost::system::error_code& code) {
      if (code || self->stopped_) return;
      self->request();
      self->arm_poll();
    });
  }

  // Starts a pass, or notes that another is wanted when this one is done.
  void request() {
    if (running_) {
      again_ = true;
      return;
    }
    (void)watch();  // before listing, so that nothing is missed; the pass reports what is wrong
    running_ = true;
    ++stats_.reads;
    // The worker is joined before this object goes, and it is alone with pass_ while running_ is
    // set.
    asio::post(*worker_, [self = shared_from_this(), forced = std::exchange(forced_, false)] {
      auto outcome = std::make_shared<DirectoryPass::Outcome>(self->pass_.run(forced));
      asio::post(self->io_, [self, outcome] { self->done(std::move(*outcome)); });
    });
  }

  void done(DirectoryPass::Outcome outcome) {
    running_ = false;
    if (stopped_) return;
    using Kind = DirectoryPass::Outcome::Kind;
    bool was_unstable = unstable_ > 0;
    unstable_ = outcome.kind == Kind::Unstable ? unstable_ + 1 : 0;
    if (unstable_ > 0) {
      ++stats_.unstable;
      forced_ = true;
      if (unstable_ == kMaxUnstable)
        refuse({{options_.directory, {}, {}, "the files keep changing while they are read"}});
    }
    if (was_unstable != (unstable_ > 0)) arm_poll();
    if (outcome.kind == Kind::Good) warn(std::move(outcome.warnings));
    if (stopped_) return;  // by the handler
    if (outcome.kind == Kind::Good) apply(std::move(outcome.catalog));
    if (stopped_) return;  // by the handler
    if (outcome.kind == Kind::Bad) refuse(std::move(outcome.errors));
    if (!stopped_ && std::exchange(again_, false)) request();
  }

  void apply(std::shared_ptr<const Catalog> catalog) {
    if (catalog == current_ && errors_.empty()) return;
    errors_.clear();
    current_ = std::move(catalog);
    ++stats_.applied;
    // A copy: the handler may call stop(), which drops the original.
    if (auto handler = handlers_.on_catalog) handler(current_);
  }

  void warn(std::vector<syntax::ConfigError> warnings) {
    std::vector<syntax::ConfigError> fresh;
    for (const auto& warning : warnings)
      if (std::none_of(warnings_.begin(), warnings_.end(), [&](const auto& told) {
            return told.file == warning.file && told.key == warning.key &&
                   told.what == warning.what;
          }))
        fresh.push_back(warning);
    warnings_ = std::move(warnings);
    if (fresh.empty()) return;
    if (auto handler = handlers_.on_warning) handler(std::move(fresh));
  }

  void refuse(std::vector<syntax::ConfigError> errors) {
    if (errors == errors_) return;
    errors_ = std::move(errors);
    ++stats_.refused;
    if (auto handler = handlers_.on_error) handler(errors_);
  }

  asio::io_context& io_;
  DirectoryOptions options_;
  DirectoryPass pass_;
  asio::posix::stream_descriptor inotify_;
  asio::steady_timer debounce_;
  asio::steady_timer poll_;
  Handlers handlers_;
  DirectoryStats stats_;
  std::array<char, 64 * 1024> buffer_{};
  int watch_ = -1;
  bool stopped_ = false;
  bool running_ = false;
  bool again_ = false;
  bool forced_ = false;
  unsigned unstable_ = 0;
  std::optional<Clock::time_point> first_event_;
  std::shared_ptr<const Catalog> current_;
  std::vector<syntax::ConfigError>
      errors_;  // what on_error was last told; empty after a good state
  std::vector<syntax::ConfigError> warnings_;  // of the last good pass
  std::optional<asio::thread_pool> worker_;
};

DirectorySource::DirectorySource(asio::io_context& io, DirectoryOptions options, VipAllocator vips)
    : watcher_(std::make_shared<Watcher>(io, std::move(options), std::move(vips))) {}

DirectorySource::~DirectorySource() {
  watcher_->stop();
  watcher_->join();
}

Status DirectorySource::start(Handlers handlers) { return watcher_->start(std::move(handlers)); }

void DirectorySource::stop() { watcher_->stop(); }

const DirectoryStats& DirectorySource::stats() const { return watcher_->stats(); }

}  // namespace mesh::catalog
