// SPDX-License-Identifier: Apache-2.0
// The directory source against real inotify: every way in which people and programs change files.
#include "agent/catalog/directory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <ctime>

#include <fmt/format.h>

#include "agent/base/unique_fd.h"
#include "tests/unit/catalog/temp_dir.h"

namespace mesh::catalog {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

class DirectoryTest : public ::testing::Test {
 protected:
  DirectoryTest() {
    fs::create_directory(directory());
    options_.directory = directory();
    options_.poll = 1h;  // whatever is seen was seen by inotify
  }

  [[nodiscard]] std::string directory() const { return dir_.path("config"); }
  [[nodiscard]] std::string in(std::string_view name) const {
    return directory() + "/" + std::string(name);
  }
  void write(std::string_view name, std::string_view text) const {
    dir_.write("config/" + std::string(name), text);
  }

  Status start(VipAllocator vips = VipAllocator::with_default_prefix()) {
    source_.emplace(io_, options_, std::move(vips));
    return source_->start({
        .on_catalog =
            [this](std::shared_ptr<const Catalog> catalog) {
              ++catalogs_;
              catalog_ = std::move(catalog);
            },
        .on_error =
            [this](std::vector<syntax::ConfigError> errors) {
              ++errors_;
              last_errors_ = std::move(errors);
            },
        .on_warning =
            [this](std::vector<syntax::ConfigError> warnings) {
              for (auto& warning : warnings) warnings_.push_back(warning.to_string());
            },
    });
  }

  // Runs the loop until `done`, or fails after 10 s.
  template <typename Done>
  void until(Done done, const char* what) {
    auto deadline = std::chrono::steady_clock::now() + 10s;
    while (!done() && std::chrono::steady_clock::now() < deadline) {
      io_.restart();
      io_.run_for(5ms);
    }
    EXPECT_TRUE(done()) << "waited in vain for: " << what;
  }

  void run_for(std::chrono::milliseconds time) {
    io_.restart();
    io_.run_for(time);
  }

  void until_services(const std::vector<std::string>& names) {
    until([&] { return catalog_ && services() == names; }, "services");
    EXPECT_EQ(services(), names);
  }

  [[nodiscard]] std::vector<std::string> services() const {
    std::vector<std::string> names;
    if (catalog_)
      for (const auto& [name, service] : catalog_->services()) names.push_back(name);
    return names;
  }

  TempDir dir_;
  DirectoryOptions options_;
  boost::asio::io_context io_;
  std::optional<DirectorySource> source_;
  std::shared_ptr<const Catalog> catalog_;
  std::vector<syntax::ConfigError> last_errors_;
  std::vector<std::string> warnings_;
  int catalogs_ = 0;
  int errors_ = 0;
};

TEST_F(DirectoryTest, TheFirstStateIsReportedEvenIfItIsEmpty) {
  ASSERT_TRUE(start());
  EXPECT_EQ(catalogs_, 0);  // never from inside start()
  until([&] { return catalogs_ == 1; }, "the empty catalog");
  EXPECT_TRUE(catalog_->services().empty());
}

TEST_F(DirectoryTest, RefusesToStartOnWhatIsNotADirectory) {
  options_.directory = in("missing");
  auto missing = start();
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().what, "watch " + in("missing") + ": No such file or directory");
  write("file", "");
  options_.directory = in("file");
  auto file = start();
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().what, "watch " + in("file") + ": Not a directory");
}

TEST_F(DirectoryTest, CreateChangeDelete) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  until_services({"a"});
  write("b.json", service_text("b", "10.0.0.2"));
  until_services({"a", "b"});
  write("a.json", service_text("a2", "10.0.0.1"));
  until_services({"a2", "b"});
  fs::remove(in("a.json"));
  until_services({"b"});
  fs::remove(in("b.json"));
  until_services({});
  EXPECT_EQ(errors_, 0);
}

TEST_F(DirectoryTest, RenameIntoAndOutOfPlace) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  until_services({"a"});
  dir_.write("staged", service_text("b", "10.0.0.2"));
  fs::rename(dir_.path("staged"), in("a.json"));
  until_services({"b"});
  fs::rename(in("a.json"), in("a.json.off"));
  until_services({});
  EXPECT_EQ(catalogs_, 3);
}

TEST_F(DirectoryTest, WarningsAreToldOnceAndBeforeTheCatalog) {
  const std::string_view text =
      R"({"Kind": "service-defaults", "Name": "a", "MaxInboundConnections": 7})";
  write("a.json", service_text("a", "10.0.0.1"));
  write("d.json", text);
  ASSERT_TRUE(start());
  until_services({"a"});
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("MaxInboundConnections: has no effect"), std::string::npos);
  write("d.json", "\n\n" + std::string(text));
  write("b.json", service_text("b", "10.0.0.2"));
  until_services({"a", "b"});
  EXPECT_EQ(warnings_.size(), 1u);
  write("e.json", R"({"Kind": "service-defaults", "Name": "b", "MaxInboundConnections": 7})");
  until([&] { return warnings_.size() == 2; }, "the new warning");
}

TEST_F(DirectoryTest, OtherNamesAreIgnored) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  until_services({"a"});
  for (auto name : {".b.json", "b.json~", "b.txt", ".a.json.swp", ".c.hcl", "c.yaml.bak", "json"})
    write(name, "{ broken");
  fs::create_directory(in("d.json"));
  until([&] { return source_->stats().reads >= 2; }, "a second pass");
  run_for(200ms);
  EXPECT_EQ(catalogs_, 1);
  EXPECT_EQ(errors_, 0);
}

TEST_F(DirectoryTest, UnchangedContentIsNotReported) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  until_services({"a"});
  auto before = catalog_;
  write("a.json", "\n" + service_text("a", "10.0.0.1"));  // other bytes, same meaning
  until([&] { return source_->stats().reads >= 2; }, "a second pass");
  run_for(200ms);
  EXPECT_EQ(catalogs_, 1);
  EXPECT_EQ(catalog_, before);
  EXPECT_EQ(source_->stats().applied, 1u);
}

TEST_F(DirectoryTest, AHalfWrittenFileKeepsTheLastGoodState) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  until_services({"a"});
  auto before = catalog_;

  std::string text = service_text("b", "10.0.0.2");
  UniqueFd fd(::open(in("b.json").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  ASSERT_TRUE(fd);
  ASSERT_EQ(::write(fd.get(), text.data(), 20), 20);
  until([&] { return errors_ == 1; }, "the parse error");
  ASSERT_EQ(last_errors_.size(), 1u);
  EXPECT_EQ(last_errors_[0].file, in("b.json"));
  EXPECT_EQ(last_errors_[0].at, (syntax::Position{1, 21}));  // where the file ends
  EXPECT_EQ(catalog_, before);

  // The writer goes on without closing.
  ASSERT_GT(::write(fd.get(), text.data() + 20, text.size() - 20), 0);
  until_services({"a", "b"});
  EXPECT_EQ(errors_, 1);
}

TEST_F(DirectoryTest, TheSameErrorsAreReportedOnceAndRecoveryAlways) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  until_services({"a"});
  auto before = catalog_;
  write("b.json", "{");
  until([&] { return errors_ == 1; }, "the error");
  write("c.json", service_text("c", "10.0.0.3"));  // good by itself, but the whole is not
  auto reads = source_->stats().reads;
  until([&] { return source_->stats().reads > reads; }, "another pass");
  run_for(200ms);
  EXPECT_EQ(errors_, 1);
  EXPECT_EQ(services(), std::vector<std::string>{"a"});
  write("b.json", "{\n{");
  until([&] { return errors_ == 2; }, "the other error");

  fs::remove(in("b.json"));
  fs::remove(in("c.json"));
  until([&] { return catalogs_ == 2; }, "the recovery");
  EXPECT_EQ(catalog_, before);  // the same pointer: nothing changed
}

TEST_F(DirectoryTest, AnErrorAtStartIsReportedAndRepaired) {
  write("a.json", "{");
  ASSERT_TRUE(start());
  until([&] { return errors_ == 1; }, "the error");
  EXPECT_EQ(catalogs_, 0);
  write("a.json", service_text("a", "10.0.0.1"));
  until_services({"a"});
}

TEST_F(DirectoryTest, AConfigMapUpdateIsAppliedAsAWhole) {
  // What the kubelet does: files are links through ..data, which is renamed over.
  auto version = [&](std::string_view name, std::string_view a, std::string_view b) {
    fs::create_directory(in(name));
    write(std::string(name) + "/a.json", a);
    write(std::string(name) + "/b.json", b);
    fs::create_symlink(name, in("..data_tmp"));
    fs::rename(in("..data_tmp"), in("..data"));
  };
  version("..1", service_text("a1", "10.0.0.1"), service_text("b1", "10.0.0.2"));
  fs::create_symlink("..data/a.json", in("a.json"));
  fs::create_symlink("..data/b.json", in("b.json"));
  ASSERT_TRUE(start());
  until_services({"a1", "b1"});
  // The addresses change places: applied one by one they would clash.
  version("..2", service_text("a2", "10.0.0.2"), service_text("b2", "10.0.0.1"));
  fs::remove_all(in("..1"));
  until_services({"a2", "b2"});
  EXPECT_EQ(catalogs_, 2);
  EXPECT_EQ(errors_, 0);
}

TEST_F(DirectoryTest, TheDirectoryIsRemovedAndMadeAgain) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  until_services({"a"});
  for (int round = 1; round <= 2; ++round) {
    fs::remove_all(directory());
    until(
        [&] {
          return !last_errors_.empty() &&
                 last_errors_.back().to_string() ==
                     directory() + ": cannot read: No such file or directory";
        },
        "the error");
    EXPECT_NE(catalog_, nullptr);
    last_errors_.clear();
    fs::create_directory(directory());
    write("b.json", service_text(fmt::format("b{}", round), "10.0.0.2"));
    until_services({fmt::format("b{}", round)});
    // And inotify works again.
    write("b.json", service_text("c", "10.0.0.2"));
    until_services({"c"});
  }
}

TEST_F(DirectoryTest, TheDirectoryIsReplacedByRename) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  until_services({"a"});
  fs::create_directory(dir_.path("next"));
  dir_.write("next/b.json", service_text("b", "10.0.0.2"));
  fs::rename(directory(), dir_.path("old"));
  fs::rename(dir_.path("next"), directory());
  until_services({"b"});
  auto applied = catalogs_;
  dir_.write("old/a.json", service_text("x", "10.0.0.9"));
  run_for(300ms);
  EXPECT_EQ(catalogs_, applied);  // the old directory is of no interest any more
  write("c.json", service_text("c", "10.0.0.3"));
  until_services({"b", "c"});
}

TEST_F(DirectoryTest, PollingFindsWhatInotifyCannotSee) {
  // Two links that inotify does not follow: to the directory itself, and to a file elsewhere.
  options_.poll = 100ms;
  options_.directory = dir_.path("link");
  fs::create_directory_symlink(directory(), dir_.path("link"));
  dir_.write("elsewhere", service_text("a", "10.0.0.1"));
  fs::create_symlink(dir_.path("elsewhere"), in("a.json"));
  ASSERT_TRUE(start());
  until_services({"a"});
  dir_.write("elsewhere", service_text("b", "10.0.0.1"));
  until_services({"b"});
  fs::create_directory(dir_.path("other"));
  dir_.write("other/c.json", service_text("c", "10.0.0.3"));
  fs::create_directory_symlink(dir_.path("other"), dir_.path("link2"));
  fs::rename(dir_.path("link2"), dir_.path("link"));
  until_services({"c"});
}

TEST_F(DirectoryTest, AQueueOverflowEndsInAFullRead) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  until_services({"a"});
  int limit = 0;
  std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> limit;
  ASSERT_GT(limit, 0);
  if (limit > 200'000) GTEST_SKIP() << "fs.inotify.max_queued_events is " << limit;
  // The loop does not run meanwhile, so the queue fills up; the last change is lost in the
  // overflow.
  for (int i = 0; i < limit; ++i) {
    UniqueFd fd(::open(in(i % 2 == 0 ? "x" : "y").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    ASSERT_TRUE(fd);
  }
  write("b.json", service_text("b", "10.0.0.2"));
  until_services({"a", "b"});
  EXPECT_GE(source_->stats().overflows, 1u);
}

TEST_F(DirectoryTest, ManyEventsAreOneReadWithinTheLimit) {
  options_.quiet = 100ms;
  options_.max_delay = 300ms;
  ASSERT_TRUE(start());
  until([&] { return catalogs_ == 1; }, "the empty catalog");
  // A writer that never pauses for as long as `quiet`: the read comes after max_delay all the same.
  auto begin = std::chrono::steady_clock::now();
  int writes = 0;
  while (catalogs_ == 1 && std::chrono::steady_clock::now() - begin < 10s) {
    write("a.json", service_text(fmt::format("a{}", ++writes), "10.0.0.1"));
    run_for(10ms);
  }
  auto elapsed = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(catalogs_, 2);
  EXPECT_GE(elapsed, 290ms);
  EXPECT_LT(elapsed, 5s);
  EXPECT_GT(writes, 5);
  EXPECT_LE(source_->stats().reads, 4u);
}

TEST_F(DirectoryTest, SeededVipsAreKept) {
  auto vips = VipAllocator::with_default_prefix();
  ASSERT_TRUE(vips.seed("a", *Address::parse("241.1.2.3")));
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start(std::move(vips)));
  until_services({"a"});
  EXPECT_EQ(catalog_->find("a")->vip4.to_string(), "241.1.2.3");
}

TEST_F(DirectoryTest, NothingIsCalledAfterStop) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  source_->stop();  // a pass may be under way
  source_->stop();
  write("b.json", "{");
  run_for(300ms);
  EXPECT_EQ(catalogs_, 0);
  EXPECT_EQ(errors_, 0);
}

TEST_F(DirectoryTest, AHandlerMayStopAndDestroyTheSource) {
  write("a.json", service_text("a", "10.0.0.1"));
  bool called = false;
  source_.emplace(io_, options_, VipAllocator::with_default_prefix());
  ASSERT_TRUE(source_->start({.on_catalog =
                                  [&](std::shared_ptr<const Catalog>) {
                                    called = true;
                                    source_.reset();
                                  },
                              .on_error = nullptr}));
  until([&] { return called; }, "the catalog");
  run_for(100ms);
}

TEST_F(DirectoryTest, ReadsAThousandServicesQuicklyAndNeverOnTheLoop) {
  for (int i = 0; i < 1000; ++i)
    write(fmt::format("{}.json", i),
          service_text(fmt::format("s{}", i), fmt::format("10.0.{}.{}", i / 250, i % 250 + 1)));
  ASSERT_TRUE(start());
  // Processor time of this thread: what the loop does, not what else the machine does meanwhile.
  auto processor_ms = [] {
    timespec now{};
    (void)::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);  // cannot fail for the own thread
    return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
  };
  double longest = 0;
  until(
      [&] {
        double before = processor_ms();
        io_.restart();
        (void)io_.poll_one();  // one handler at most
        longest = std::max(longest, processor_ms() - before);
        return catalogs_ == 1;
      },
      "the catalog");
  EXPECT_EQ(services().size(), 1000u);
  EXPECT_LT(longest, 50.0);
}

TEST_F(DirectoryTest, ReadsEverySyntax) {
  write("a.json", service_text("a", "10.0.0.1"));
  ASSERT_TRUE(start());
  until_services({"a"});
  write("b.hcl", "service { name = \"b\" address = \"10.0.0.2\" port = 80 }\n");
  until_services({"a", "b"});
  write("c.yaml", "service: {name: c, address: 10.0.0.3, port: 80}\n");
  write("d.yml", "service: {name: d, address: 10.0.0.4, port: 80}\n");
  until_services({"a", "b", "c", "d"});
  EXPECT_EQ(errors_, 0);
  // As a program leaves it that opens a file to write it anew.
  write("c.yaml", "");
  until([&] { return errors_ == 1; }, "the empty file is refused");
  EXPECT_NE(last_errors_[0].to_string().find("there is nothing in the file"), std::string::npos);
  fs::remove(in("c.yaml"));
  until_services({"a", "b", "d"});
}

}  // namespace
}  // namespace mesh::catalog
