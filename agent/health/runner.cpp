// SPDX-License-Identifier: Apache-2.0
#include "agent/health/runner.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <csignal>
#include <future>
#include <random>

#include "agent/base/log.h"

namespace mesh::health {
namespace net = boost::asio;

namespace {

// The first result is soon there, but not that of every check at the same moment.
constexpr std::chrono::milliseconds kFirstWithin{500};
constexpr std::chrono::seconds kLookForOverdue{1};

Clock::duration random_up_to(Clock::duration limit) {
  thread_local std::minstd_rand random{std::random_device{}()};
  return Clock::duration(std::uniform_int_distribution<Clock::rep>(0, limit.count())(random));
}

std::string_view word(CheckStatus status) { return catalog::to_string(status); }

}  // namespace

struct Runner::Entry {
  Entry(net::io_context& io, Task&& t, Clock::time_point now)
      : task(std::move(t)), state(state_of(task, now)), timer(io) {}
  ~Entry() {
    if (probe) probe->cancel();
  }
  [[nodiscard]] bool is_ttl() const { return task.check.kind == catalog::CheckKind::Ttl; }
  [[nodiscard]] bool same(const Task& other) const {
    return task.netns == other.netns && task.own == other.own && task.check == other.check &&
           task.absent == other.absent;
  }
  static CheckState state_of(const Task& task, Clock::time_point now) {
    if (task.absent.empty()) return {task.check, task.carried.value_or(task.check.initial), now};
    CheckState state(task.check, CheckStatus::Critical, now);
    state.explain(task.absent);
    return state;
  }

  Task task;
  CheckState state;
  net::steady_timer timer;
  std::shared_ptr<Probe> probe;  // under way
};

Runner::Runner(Table& table, std::function<void()> on_change,
               std::function<Clock::time_point()> now)
    : table_(table),
      on_change_(std::move(on_change)),
      now_(std::move(now)),
      work_(net::make_work_guard(io_)),
      thread_([this] { run(); }) {}

Runner::~Runner() {
  net::post(io_, [this] {
    entries_.clear();
    withdrawals_.cancel();
    stopped_ = true;
    work_.reset();
  });
  thread_.join();
}

// Signals belong to the main thread.
void Runner::run() {
  sigset_t all;
  sigfillset(&all);
  (void)::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  io_.run();
}

void Runner::in_thread(const std::function<void()>& body) const {
  std::promise<void> done;
  net::post(io_, [&] {
    body();
    done.set_value();
  });
  done.get_future().wait();
}

void Runner::set(std::vector<Task> tasks) {
  in_thread([&] { apply(tasks); });
}

void Runner::apply(std::vector<Task>& tasks) {
  std::map<Key, std::shared_ptr<Entry>> now;
  std::uint64_t over = 0;
  over_limit_.clear();
  for (auto& task : tasks) {
    Key key{task.instance, task.check.id};
    if (now.count(key) != 0) continue;  // the catalog has refused it
    if (now.size() >= kMaxChecks) {
      ++over;
      over_limit_.insert(task.instance);
      continue;
    }
    const auto before = entries_.find(key);
    if (before != entries_.end() && before->second->same(task)) {
      now.emplace(std::move(key), before->second);
      continue;
    }
    auto entry = std::make_shared<Entry>(io_, std::move(task), now_());
    now.emplace(std::move(key), entry);
    if (!entry->task.absent.empty()) continue;
    const auto interval = std::chrono::duration_cast<Clock::duration>(entry->task.check.interval);
    if (entry->is_ttl())
      schedule(entry, std::chrono::duration_cast<Clock::duration>(entry->task.check.ttl));
    else
      schedule(entry, random_up_to(std::min<Clock::duration>(interval, kFirstWithin)));
  }
  if (over != 0 && counters_.over_limit.load() == 0)
    log::warn(
        "{} health checks are not run: {} are the most on one node; what they are of counts "
        "as healthy",
        over, kMaxChecks);
  counters_.over_limit.store(over, std::memory_order_relaxed);
  // Those that are left out end here, and their probes with them.
  for (const auto& [key, entry] : entries_)
    if (const auto it = now.find(key); it == now.end() || it->second != entry) {
      entry->timer.cancel();
      if (entry->probe) {
        entry->probe->cancel();
        entry->probe.reset();
        --probes_;
      }
      entry->task.make_socket = nullptr;
    }
  entries_ = std::move(now);
  publish();
  watch_withdrawals();
  start_waiting();
}

void Runner::schedule(const std::shared_ptr<Entry>& entry, Clock::duration after) {
  entry->timer.expires_after(after);
  entry->timer.async_wait(
      [this, weak = std::weak_ptr<Entry>(entry)](boost::system::error_code code) {
        if (code) return;
        if (const auto due_now = weak.lock()) due(due_now);
      });
}

void Runner::due(const std::shared_ptr<Entry>& entry) {
  if (!entry->is_ttl()) {
    waiting_.push_back(entry);
    return start_waiting();
  }
  if (entry->state.expire(now_())) {
    counters_.changes.fetch_add(1, std::memory_order_relaxed);
    log::warn("health: {} of {} is critical: {}", entry->task.check.id, entry->task.instance,
              entry->state.output());
    publish();
  }
}

void Runner::start_waiting() {
  while (probes_ < kMaxProbes && !waiting_.empty()) {
    const auto entry = waiting_.front().lock();
    waiting_.pop_front();
    if (entry && entry->task.make_socket) probe(entry);
  }
}

void Runner::probe(const std::shared_ptr<Entry>& entry) {
  ++probes_;
  entry->probe = Probe::make(io_, entry->task.check, entry->task.own, entry->task.make_socket);
  entry->probe->start([this, weak = std::weak_ptr<Entry>(entry)](Outcome outcome) {
    if (const auto alive = weak.lock()) on_outcome(alive, std::move(outcome));
  });
}

void Runner::on_outcome(const std::shared_ptr<Entry>& entry, Outcome outcome) {
  --probes_;
  entry->probe.reset();
  auto& counter = outcome.status == CheckStatus::Passing   ? counters_.passing
                  : outcome.status == CheckStatus::Warning ? counters_.warning
                                                           : counters_.critical;
  counter.fetch_add(1, std::memory_order_relaxed);
  if (entry->state.report(std::move(outcome), now_())) {
    counters_.changes.fetch_add(1, std::memory_order_relaxed);
    log::info("health: {} of {} is {}: {}", entry->task.check.id, entry->task.instance,
              word(entry->state.status()), entry->state.output().substr(0, 200));
    publish();
  }
  schedule(entry, std::chrono::duration_cast<Clock::duration>(entry->task.check.interval));
  start_waiting();
}

void Runner::publish() {
  Table::Own instances;
  std::set<std::string_view> overdue;
  const auto now = now_();
  for (const auto& [key, entry] : entries_) {
    if (entry->state.overdue(now)) overdue.insert(key.first);
    const auto [it, fresh] = instances.try_emplace(key.first);
    auto& instance = it->second;
    if (!fresh && worse(instance.status, entry->state.status()) == instance.status) continue;
    instance.status = entry->state.status();
    instance.output = entry->state.output();
  }
  for (const auto& instance : over_limit_)
    instances.try_emplace(instance, InstanceHealth{CheckStatus::Passing, "its checks are not run"});
  std::erase_if(withdrawn_, [&](const std::string& instance) {
    const auto it = instances.find(instance);
    return it == instances.end() || it->second.status != CheckStatus::Critical;
  });
  withdrawn_.insert(overdue.begin(), overdue.end());
  for (const auto& instance : withdrawn_) instances.find(instance)->second.withdrawn = true;
  if (table_.replace(std::move(instances))) on_change_();
}

// While there is a check that may take its instance out.
void Runner::watch_withdrawals() {
  if (stopped_ || std::none_of(entries_.begin(), entries_.end(), [](const auto& entry) {
        return entry.second->task.check.deregister_after.count() > 0;
      })) {
    withdrawals_.cancel();
    return;
  }
  withdrawals_.expires_after(kLookForOverdue);
  withdrawals_.async_wait([this](boost::system::error_code code) {
    if (code) return;
    publish();
    watch_withdrawals();
  });
}

Status Runner::heard(const std::string& check, CheckStatus status, std::string note) {
  Status result = fail("no check '{}' of kind ttl on this node", check);
  in_thread([&] {
    for (const auto& [key, entry] : entries_) {
      if (key.second != check || !entry->is_ttl()) continue;
      if (!entry->task.absent.empty()) {
        result = fail("{}", entry->task.absent);
        continue;
      }
      result = {};
      if (entry->state.report({status, std::move(note)}, now_())) {
        counters_.changes.fetch_add(1, std::memory_order_relaxed);
        publish();
      }
      schedule(entry, std::chrono::duration_cast<Clock::duration>(entry->task.check.ttl));
      return;
    }
  });
  return result;
}

std::vector<CheckRow> Runner::rows() const {
  std::vector<CheckRow> rows;
  in_thread([&] {
    const auto now = now_();
    for (const auto& [key, entry] : entries_)
      rows.push_back({key.first, key.second, entry->task.check.name, entry->task.check.kind,
                      entry->state.status(), entry->state.output(),
                      std::chrono::duration_cast<std::chrono::seconds>(now - entry->state.since()),
                      withdrawn_.contains(key.first)});
  });
  return rows;
}

}  // namespace mesh::health
