#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/ids.h"

namespace epsim {

/// The MPI processes of a run, from MPI_Init to MPI_Finalize. The handful of calls that epsim needs, in C++ terms.
class World {
 public:
  /// Starts MPI. Throws std::runtime_error where a launcher started several processes but MPI sees one (srun without a matching PMI does that silently).
  World(int& argc, char**& argv);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int size() const { return size_; }
  int rank() const { return rank_; }
  bool root() const { return rank_ == 0; }
  /// Whether a launcher (mpirun, srun) started this process.
  bool launched() const { return launched_; }
  /// The same, before there is a World: a verb that also runs alone then does without MPI.
  static bool launcher_present();
  static std::string library();  ///< name and version of the MPI library

  void barrier();
  /// True on all processes iff `value` is the same text on all.
  bool all_equal(const std::string& value);
  bool all(bool value);
  double max(double value);
  /// Every process contributes its block; all get all blocks in process order. `counts` are the block sizes in elements.
  void all_gather(std::span<std::uint16_t> values, std::span<const std::int64_t> counts);
  void all_gather(std::span<float> values, std::span<const std::int64_t> counts);
  /// Brings each process's block to the root, in process order; others get nothing.
  std::vector<float> gather(std::span<const float> block, std::span<const std::int64_t> counts);
  std::vector<std::int64_t> gather(std::span<const std::int64_t> block, std::span<const std::int64_t> counts);

  /// Messages under way. Waiting sleeps between looks, so that processes that wait leave the cores to those that compute.
  class Requests {
   public:
    Requests();
    ~Requests();
    Requests(const Requests&) = delete;
    Requests& operator=(const Requests&) = delete;
    void send(std::span<const float> data, int to, int tag);
    void receive(std::span<float> data, int from, int tag);
    /// Gives the number of values that each message brought, in the order of the calls; -1 for those sent. A message may be shorter than the room for it.
    std::vector<std::int64_t> wait();

   private:
    struct Handles;
    Handles* handles_;
  };
  /// The largest tag that every MPI promises.
  static constexpr int kMaxTag = 32767;
  /// Ends all processes at once with an exit code; for errors that only one of them sees.
  [[noreturn]] static void abort(int code);

 private:
  template <class T>
  void all_gather_of(std::span<T> values, std::span<const std::int64_t> counts);
  template <class T>
  std::vector<T> gather_of(std::span<const T> block, std::span<const std::int64_t> counts);
  bool launched_ = false;
  int size_ = 1, rank_ = 0;
};

}  // namespace epsim
