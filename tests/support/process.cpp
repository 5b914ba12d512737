// SPDX-License-Identifier: Apache-2.0
#include "tests/support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include "agent/base/unique_fd.h"
#include "tests/support/netns.h"

namespace mesh::test {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kDrainLimit = std::chrono::seconds(1);

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

Result<Pipe> make_pipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) < 0) return fail_errno(errno, "pipe");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// What the child does between fork and exec; system calls only. 0, or the step that failed.
struct ChildPlan {
  pid_t parent = 0;
  int netns = -1;
  int cgroup_procs = -1;
  int in = -1;
  int out = -1;
  int err = -1;
};

const char* enter_child(const ChildPlan& plan) {
  if (::setpgid(0, 0) < 0) return "setpgid";
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) return "prctl";
  if (::getppid() != plan.parent) return "parent is gone";
  if (plan.cgroup_procs >= 0 && ::write(plan.cgroup_procs, "0", 1) != 1) return "cgroup.procs";
  if (plan.netns >= 0 && ::setns(plan.netns, CLONE_NEWNET) < 0) return "setns";
  if (::dup2(plan.in, 0) < 0 || ::dup2(plan.out, 1) < 0 || ::dup2(plan.err, 2) < 0) return "dup2";
  sigset_t none;
  sigemptyset(&none);
  (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
  (void)::signal(SIGPIPE, SIG_DFL);
  return nullptr;
}

std::vector<std::string> make_environment(const SpawnOptions& options) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const auto name = text.substr(0, text.find('='));
    const bool replaced = std::any_of(options.env.begin(), options.env.end(),
                                      [&](const auto& pair) { return pair.first == name; });
    if (!replaced) result.emplace_back(text);
  }
  for (const auto& [name, value] : options.env) result.push_back(name + "=" + value);
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (auto& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

std::string ExitStatus::to_string() const {
  return exited ? fmt::format("exit status {}", code) : fmt::format("signal {}", signal);
}

std::string RunResult::describe() const {
  return fmt::format("{}{}\n--- stdout\n{}--- stderr\n{}", status.to_string(),
                     timed_out ? " (killed at the deadline)" : "", out, err);
}

struct Process::State {
  pid_t pid = -1;
  UniqueFd pidfd;
  UniqueFd input;  // write end of its stdin
  UniqueFd stop;   // eventfd: ends the reader
  std::optional<ExitStatus> status;
  std::size_t max_output = 0;

  struct Stream {
    UniqueFd fd;
    std::string text;
    bool open = true;
  };
  mutable std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  std::array<Stream, 2> streams;
  std::size_t dropped = 0;
  std::thread reader;

  ~State() {
    kill_group();
    reap(true);
    const std::uint64_t one = 1;
    (void)::write(stop.get(), &one, sizeof one);  // an eventfd cannot be full here
    if (reader.joinable()) reader.join();
  }

  void kill_group() {
    if (pid > 0 && !status) (void)::kill(-pid, SIGKILL);
    if (pid > 0 && !status) (void)::kill(pid, SIGKILL);  // before it called setpgid
  }

  void reap(bool block) {
    if (pid <= 0 || status) return;
    int raw = 0;
    if (::waitpid(pid, &raw, block ? 0 : WNOHANG) != pid) return;
    ExitStatus result;
    result.exited = WIFEXITED(raw);
    if (result.exited) result.code = WEXITSTATUS(raw);
    if (WIFSIGNALED(raw)) result.signal = WTERMSIG(raw);
    status = result;
    (void)::kill(-pid, SIGKILL);  // what it forked goes with it
  }

  void read_loop() {
    std::array<char, 16384> buffer;
    std::array<pollfd, 3> fds{};
    fds[2] = {stop.get(), POLLIN, 0};
    while (true) {
      bool any = false;
      for (std::size_t i = 0; i < 2; ++i) {
        fds[i] = {streams[i].open ? streams[i].fd.get() : -1, POLLIN, 0};
        any = any || streams[i].open;
      }
      if (!any) break;
      if (::poll(fds.data(), fds.size(), -1) < 0) {
        if (errno == EINTR) continue;
        break;
      }
      for (std::size_t i = 0; i < 2; ++i) {
        if (fds[i].revents == 0) continue;
        const ssize_t n = ::read(fds[i].fd, buffer.data(), buffer.size());
        std::lock_guard lock(mutex);
        if (n <= 0) {
          streams[i].open = false;
        } else {
          const std::size_t got = static_cast<std::size_t>(n);
          const std::size_t room = max_output - std::min(max_output, streams[i].text.size());
          streams[i].text.append(buffer.data(), std::min(room, got));
          dropped += got - std::min(room, got);
        }
        changed.notify_all();
      }
      if (fds[2].revents != 0) break;
    }
    std::lock_guard lock(mutex);
    for (auto& stream : streams) stream.open = false;
    changed.notify_all();
  }

  [[nodiscard]] bool drained() const { return !streams[0].open && !streams[1].open; }
  // Something was written that the reader has not come to yet, as on a machine that is too busy.
  [[nodiscard]] bool unread() const {
    int bytes = 0;
    for (const auto& stream : streams)
      if (stream.open && ::ioctl(stream.fd.get(), FIONREAD, &bytes) == 0 && bytes > 0) return true;
    return false;
  }
};

Process::Process(std::unique_ptr<State> state) : state_(std::move(state)) {}
Process::Process(Process&&) noexcept = default;
Process& Process::operator=(Process&&) noexcept = default;
Process::~Process() = default;

Result<Process> Process::start(const SpawnOptions& options, const std::vector<std::string>* argv,
                               const std::function<int()>* body) {
  auto in = make_pipe();
  auto out = make_pipe();
  auto err = make_pipe();
  auto ready = make_pipe();  // closed by a successful exec, else carries the failed step
  if (!in || !out || !err || !ready) return fail("spawn: no pipes left");

  UniqueFd netns;
  if (options.netns != nullptr) {
    auto opened = options.netns->open();
    if (!opened) return context(opened.error(), "spawn");
    netns = std::move(*opened);
  }
  UniqueFd cgroup;
  if (!options.cgroup.empty()) {
    const std::string file = options.cgroup + "/cgroup.procs";
    cgroup.reset(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
    if (!cgroup) return fail_errno(errno, fmt::format("open {}", file));
  }
  std::vector<std::string> arguments = argv != nullptr ? *argv : std::vector<std::string>{};
  std::vector<std::string> environment = make_environment(options);
  const auto argument_pointers = pointers(arguments);
  const auto environment_pointers = pointers(environment);

  const ChildPlan plan{::getpid(),         netns.get(),          cgroup.get(),
                       in->read_end.get(), out->write_end.get(), err->write_end.get()};
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "fork");
  if (pid == 0) {
    const char* failed = enter_child(plan);
    int error = errno;
    if (failed == nullptr && body != nullptr) {
      (void)::close_range(3, ~0U, 0);
      ::_exit((*body)());
    }
    if (failed == nullptr) {
      ::execvpe(argument_pointers[0], argument_pointers.data(), environment_pointers.data());
      error = errno;
      failed = "exec";
    }
    char text[128];
    const int n = ::snprintf(text, sizeof text, "%s: %s", failed, ::strerror(error));
    (void)!::write(ready->write_end.get(), text, static_cast<std::size_t>(n));
    ::_exit(127);
  }

  auto state = std::make_unique<State>();
  state->pid = pid;
  state->pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  state->stop.reset(::eventfd(0, EFD_CLOEXEC));
  state->max_output = options.max_output;
  state->streams[0].fd = std::move(out->read_end);
  state->streams[1].fd = std::move(err->read_end);
  if (!state->pidfd || !state->stop) return fail_errno(errno, "spawn");

  ready->write_end.reset();
  std::string failure(128, '\0');
  const ssize_t n = ::read(ready->read_end.get(), failure.data(), failure.size());
  if (n > 0) {
    failure.resize(static_cast<std::size_t>(n));
    return fail("spawn {}: {}", arguments.empty() ? "function" : arguments[0], failure);
  }
  out->write_end.reset();
  err->write_end.reset();
  state->reader = std::thread([raw = state.get()] { raw->read_loop(); });
  if (options.stdin_pipe || !options.stdin_text.empty()) state->input = std::move(in->write_end);

  Process process(std::move(state));
  if (!options.stdin_text.empty()) {
    MESH_TRY(process.write_stdin(options.stdin_text), "spawn");
    if (!options.stdin_pipe) process.close_stdin();
  }
  return process;
}

Result<Process> Process::spawn(const std::vector<std::string>& argv, const SpawnOptions& options) {
  if (argv.empty()) return fail("spawn: no program");
  return start(options, &argv, nullptr);
}

Result<Process> Process::fork_function(const std::function<int()>& body,
                                       const SpawnOptions& options) {
  return start(options, nullptr, &body);
}

pid_t Process::pid() const { return state_->pid; }

bool Process::running() {
  state_->reap(false);
  return !state_->status;
}

Result<ExitStatus> Process::wait(std::chrono::milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  while (running()) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return fail("process {} still runs after {} ms", state_->pid, limit.count());
    pollfd fd{state_->pidfd.get(), POLLIN, 0};
    (void)::poll(&fd, 1, static_cast<int>(left));  // EINTR: the loop looks again
  }
  // A grandchild in another process group may keep the pipes open: do not wait for it for ever.
  std::unique_lock lock(state_->mutex);
  while (!state_->changed.wait_for(lock, kDrainLimit, [&] { return state_->drained(); }) &&
         state_->unread() && Clock::now() < deadline) {
  }
  return *state_->status;
}

void Process::signal(int number) {
  if (running()) (void)::kill(state_->pid, number);  // ESRCH cannot be: it is not reaped yet
}

void Process::kill() {
  state_->kill_group();
  state_->reap(true);
}

std::string Process::out() const {
  std::lock_guard lock(state_->mutex);
  return state_->streams[0].text;
}

std::string Process::err() const {
  std::lock_guard lock(state_->mutex);
  return state_->streams[1].text;
}

std::size_t Process::dropped_output() const {
  std::lock_guard lock(state_->mutex);
  return state_->dropped;
}

bool Process::wait_output(std::string_view text, std::chrono::milliseconds limit) {
  std::unique_lock lock(state_->mutex);
  const auto found = [&] { return state_->streams[0].text.find(text) != std::string::npos; };
  (void)state_->changed.wait_for(lock, limit, [&] { return found() || !state_->streams[0].open; });
  return found();
}

bool Process::wait_lines(std::size_t count, std::chrono::milliseconds limit) {
  std::unique_lock lock(state_->mutex);
  const auto found = [&] {
    const auto& text = state_->streams[0].text;
    return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) >= count;
  };
  (void)state_->changed.wait_for(lock, limit, [&] { return found() || !state_->streams[0].open; });
  return found();
}

Status Process::write_stdin(std::string_view text) {
  // SIGPIPE of a child that is gone must not end the test.
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  (void)::sigaction(SIGPIPE, &ignore, &before);
  const ssize_t n = ::write(state_->input.get(), text.data(), text.size());
  const int error = errno;
  (void)::sigaction(SIGPIPE, &before, nullptr);
  if (n != static_cast<ssize_t>(text.size())) return fail_errno(error, "write to stdin");
  return {};
}

void Process::close_stdin() { state_->input.reset(); }

Result<RunResult> run(const std::vector<std::string>& argv, const SpawnOptions& options,
                      std::chrono::milliseconds limit) {
  auto process = Process::spawn(argv, options);
  if (!process) return tl::unexpected(process.error());
  RunResult result;
  auto status = process->wait(limit);
  if (!status) {
    result.timed_out = true;
    process->kill();
    status = process->wait(limit);
  }
  if (status) result.status = *status;
  result.out = process->out();
  result.err = process->err();
  return result;
}

Result<std::string> run_tool(const std::vector<std::string>& argv, const SpawnOptions& options,
                             std::chrono::milliseconds limit) {
  auto result = run(argv, options, limit);
  if (!result) return tl::unexpected(result.error());
  if (!result->ok()) {
    return fail("{}: {}", fmt::join(argv, " "), result->describe());
  }
  return result->out;
}

}  // namespace mesh::test
