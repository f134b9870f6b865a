#include "sim/mpi/world.h"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <stdexcept>
#include <type_traits>

#include <fmt/format.h>

namespace epsim {
namespace {

int variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? std::atoi(value) : 0;
}

template <class T>
MPI_Datatype type_of() {
  if constexpr (std::is_same_v<T, float>) return MPI_FLOAT;
  if constexpr (std::is_same_v<T, std::uint16_t>) return MPI_UINT16_T;
  if constexpr (std::is_same_v<T, std::int64_t>) return MPI_INT64_T;
}

/// Block sizes and offsets as MPI's own ints; a run that is too large for them is refused.
struct Blocks {
  std::vector<int> counts, offsets;
  explicit Blocks(std::span<const std::int64_t> sizes) {
    std::int64_t offset = 0;
    for (const std::int64_t n : sizes) {
      counts.push_back(static_cast<int>(n)), offsets.push_back(static_cast<int>(offset));
      offset += n;
    }
    if (offset > INT32_MAX) throw std::runtime_error(fmt::format("{} values are too many for one MPI gather (2^31 at most): run fewer tokens or layers at a time", offset));
  }
  std::size_t total() const { return counts.empty() ? 0 : static_cast<std::size_t>(offsets.back()) + static_cast<std::size_t>(counts.back()); }
};

}  // namespace

struct World::Requests::Handles {
  std::vector<MPI_Request> list;
  std::vector<bool> receives;
};

bool World::launcher_present() {
  return std::ranges::any_of(std::initializer_list<const char*>{"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "SLURM_STEP_NUM_TASKS"}, [](const char* name) { return std::getenv(name) != nullptr; });
}

World::World(int& argc, char**& argv) {
  launched_ = launcher_present();  // MPI_Init may set the variables itself
  MPI_Init(&argc, &argv);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  const int expected = std::max(variable("OMPI_COMM_WORLD_SIZE"), variable("SLURM_STEP_NUM_TASKS"));
  if (size_ == 1 && expected > 1) {
    MPI_Finalize();
    throw std::runtime_error(fmt::format("the launcher started {} processes but MPI sees only one: the launcher and the MPI library do not match (with srun, try --mpi=pmix)", expected));
  }
}

World::~World() {
  // While an exception is on its way out other processes may wait for us for ever; the caller ends them with `abort`.
  if (std::uncaught_exceptions() == 0) MPI_Finalize();
}

std::string World::library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  return {text, static_cast<std::size_t>(length)};
}

void World::barrier() { MPI_Barrier(MPI_COMM_WORLD); }

bool World::all_equal(const std::string& value) {
  std::string first = value;
  std::int64_t length = static_cast<std::int64_t>(value.size()), first_length = length;
  MPI_Bcast(&first_length, 1, MPI_INT64_T, 0, MPI_COMM_WORLD);
  first.resize(static_cast<std::size_t>(first_length));
  MPI_Bcast(first.data(), static_cast<int>(first_length), MPI_CHAR, 0, MPI_COMM_WORLD);
  return all(first == value);
}

bool World::all(bool value) {
  int mine = value, every = 0;
  MPI_Allreduce(&mine, &every, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
  return every != 0;
}

double World::max(double value) {
  double most = value;
  MPI_Allreduce(&value, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return most;
}

template <class T>
void World::all_gather_of(std::span<T> values, std::span<const std::int64_t> sizes) {
  const Blocks b(sizes);
  MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, values.data(), b.counts.data(), b.offsets.data(), type_of<T>(), MPI_COMM_WORLD);
}
void World::all_gather(std::span<std::uint16_t> values, std::span<const std::int64_t> counts) { all_gather_of(values, counts); }
void World::all_gather(std::span<float> values, std::span<const std::int64_t> counts) { all_gather_of(values, counts); }

template <class T>
std::vector<T> World::gather_of(std::span<const T> block, std::span<const std::int64_t> sizes) {
  const Blocks b(sizes);
  std::vector<T> all(root() ? b.total() : 0);
  MPI_Gatherv(block.data(), static_cast<int>(block.size()), type_of<T>(), all.data(), b.counts.data(), b.offsets.data(), type_of<T>(), 0, MPI_COMM_WORLD);
  return all;
}
std::vector<float> World::gather(std::span<const float> block, std::span<const std::int64_t> counts) { return gather_of(block, counts); }
std::vector<std::int64_t> World::gather(std::span<const std::int64_t> block, std::span<const std::int64_t> counts) { return gather_of(block, counts); }

World::Requests::Requests() : handles_(new Handles) {}
World::Requests::~Requests() { delete handles_; }

void World::Requests::send(std::span<const float> data, int to, int tag) {
  if (data.size() > INT32_MAX) throw std::runtime_error("a message holds more than 2^31 values: run fewer tokens");
  MPI_Isend(data.data(), static_cast<int>(data.size()), MPI_FLOAT, to, tag, MPI_COMM_WORLD, &handles_->list.emplace_back());
  handles_->receives.push_back(false);
}

void World::Requests::receive(std::span<float> data, int from, int tag) {
  if (data.size() > INT32_MAX) throw std::runtime_error("a message holds more than 2^31 values: run fewer tokens");
  MPI_Irecv(data.data(), static_cast<int>(data.size()), MPI_FLOAT, from, tag, MPI_COMM_WORLD, &handles_->list.emplace_back());
  handles_->receives.push_back(true);
}

std::vector<std::int64_t> World::Requests::wait() {
  int done = 0;
  std::vector<MPI_Status> statuses(handles_->list.size());
  while (true) {
    MPI_Testall(static_cast<int>(handles_->list.size()), handles_->list.data(), &done, statuses.data());
    if (done) break;
    const timespec nap{0, 30'000};
    nanosleep(&nap, nullptr);
  }
  std::vector<std::int64_t> brought(statuses.size(), -1);
  for (std::size_t i = 0; i < statuses.size(); ++i) {
    int values = -1;
    if (handles_->receives[i]) MPI_Get_count(&statuses[i], MPI_FLOAT, &values);
    brought[i] = values;
  }
  handles_->list.clear();
  handles_->receives.clear();
  return brought;
}

void World::abort(int code) {
  MPI_Abort(MPI_COMM_WORLD, code);
  std::abort();
}

}  // namespace epsim
