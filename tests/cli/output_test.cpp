#include "cli/output.h"

#include <csignal>
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/check.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

class OutputFolderTest : public ::testing::Test {
 protected:
  OutputFolderTest() : root_(fs::path(::testing::TempDir()) / ("epsim_output_" + std::to_string(::getpid()))) {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  ~OutputFolderTest() override { fs::remove_all(root_); }
  static std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::size_t entries(const fs::path& folder) const { return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), {})); }
  fs::path root_;
};

TEST_F(OutputFolderTest, AppearsAtOnceOnCommit) {
  OutputFolder out((root_ / "a" / "b").string(), "--out");
  out.write("x.txt", std::string("one\0two", 7));
  out.file("y.txt") << 42;
  EXPECT_FALSE(fs::exists(root_ / "a" / "b"));
  out.commit();
  EXPECT_EQ(read(root_ / "a" / "b" / "x.txt"), std::string("one\0two", 7));
  EXPECT_EQ(read(root_ / "a" / "b" / "y.txt"), "42");
  EXPECT_EQ(entries(root_ / "a"), 1U);
  EXPECT_EQ(entries(root_ / "a" / "b"), 2U);
}

TEST_F(OutputFolderTest, ReplacesItsFilesInAnExistingFolderAndKeepsOthers) {
  std::ofstream(root_ / "old.txt") << "old";
  std::ofstream(root_ / "x.txt") << "before";
  OutputFolder out(root_.string() + "/", "--out");
  out.write("x.txt", "after");
  EXPECT_EQ(read(root_ / "x.txt"), "before");
  out.commit();
  EXPECT_EQ(read(root_ / "x.txt"), "after");
  EXPECT_EQ(read(root_ / "old.txt"), "old");
  EXPECT_EQ(entries(root_), 2U);
}

TEST_F(OutputFolderTest, LeavesNothingWithoutCommit) {
  try {
    OutputFolder out((root_ / "a" / "b").string(), "--out");
    out.write("x.txt", "half");
    throw std::runtime_error("the run fails");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(entries(root_), 0U);
  { OutputFolder out(root_.string(), "--out"); out.write("x.txt", "half"); }
  EXPECT_EQ(entries(root_), 0U);
}

TEST_F(OutputFolderTest, LeavesNothingWhenInterrupted) {
  const auto interrupted = [&](const fs::path& path, int signal) {
    OutputFolder out(path.string(), "--out");
    out.write("x.txt", "half");
    out.write("y.txt", "half");
    std::raise(signal);
  };
  EXPECT_EXIT(interrupted(root_ / "a" / "b", SIGINT), ::testing::KilledBySignal(SIGINT), "");
  EXPECT_EXIT(interrupted(root_ / "a", SIGTERM), ::testing::KilledBySignal(SIGTERM), "");
  EXPECT_EXIT(interrupted(root_, SIGHUP), ::testing::KilledBySignal(SIGHUP), "");
  EXPECT_EQ(entries(root_), 0U);
}

TEST_F(OutputFolderTest, RefusesWhatCannotBeWrittenBeforeAnythingIsComputed) {
  std::ofstream(root_ / "file") << "x";
  EXPECT_THROW(OutputFolder((root_ / "file").string(), "--out"), InputError);
  EXPECT_THROW(OutputFolder((root_ / "file" / "below").string(), "--out"), InputError);
  EXPECT_THROW(OutputFolder("", "--out"), InputError);
  EXPECT_THROW(OutputFolder("/proc/epsim", "--out"), InputError);
  EXPECT_EQ(entries(root_), 1U);
  fs::create_directory(root_ / "folder");
  fs::create_directory(root_ / "folder" / "x.txt");
  OutputFolder out((root_ / "folder").string(), "--out");
  EXPECT_THROW(out.file("x.txt"), InputError);
}

}  // namespace
}  // namespace epsim
