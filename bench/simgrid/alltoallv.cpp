// alltoallv EXCHANGE BYTES TIMES: an all-to-all of a matrix of bytes as an MPI program writes it; when each rank had received all, in seconds. To be run by SMPI, SimGrid's MPI (smpicxx, smpirun).
// EXCHANGE is `direct` (every rank posts all its receives and sends at once, then waits: MPI_Alltoallv's linear algorithm) or `pairwise` (in step k a rank exchanges with rank xor k where the ranks are a
// power of two, and otherwise sends to rank + k and receives from rank - k; it ends the step when both are done: Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in
// MPICH", IJHPCA 2005). Pairs without bytes exchange nothing.
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/doubles.h"

namespace {

/// Gives the moment when all has come in; what goes out may take longer.
double direct(int self, int n, const std::vector<double>& bytes, std::vector<char>& data) {
  std::vector<MPI_Request> requests;
  const auto post = [&](int source, int destination, auto&& start) {
    const auto count = static_cast<int>(bytes[static_cast<std::size_t>(source * n + destination)]);
    if (count > 0) start(count, &requests.emplace_back());
  };
  for (int k = 1; k < n; ++k) {
    const int from = (self - k + n) % n;
    post(from, self, [&](int count, MPI_Request* r) { MPI_Irecv(data.data(), count, MPI_BYTE, from, 0, MPI_COMM_WORLD, r); });
  }
  const auto receives = static_cast<int>(requests.size());
  for (int k = 1; k < n; ++k) {
    const int to = (self + k) % n;
    post(self, to, [&](int count, MPI_Request* r) { MPI_Isend(data.data(), count, MPI_BYTE, to, 0, MPI_COMM_WORLD, r); });
  }
  MPI_Waitall(receives, requests.data(), MPI_STATUSES_IGNORE);
  const double end = MPI_Wtime();
  MPI_Waitall(static_cast<int>(requests.size()) - receives, requests.data() + receives, MPI_STATUSES_IGNORE);
  return end;
}

double pairwise(int self, int n, const std::vector<double>& bytes, std::vector<char>& data) {
  for (int k = 1; k < n; ++k) {
    const bool power = (n & (n - 1)) == 0;
    const int to = power ? self ^ k : (self + k) % n, from = power ? self ^ k : (self - k + n) % n;
    const auto out = static_cast<int>(bytes[static_cast<std::size_t>(self * n + to)]), in = static_cast<int>(bytes[static_cast<std::size_t>(from * n + self)]);
    MPI_Sendrecv(data.data(), out, MPI_BYTE, out ? to : MPI_PROC_NULL, 0, data.data(), in, MPI_BYTE, in ? from : MPI_PROC_NULL, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  }
  return MPI_Wtime();
}

}  // namespace

int main(int count, char** argument) {
  MPI_Init(&count, &argument);
  int self = 0, n = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &self);
  MPI_Comm_size(MPI_COMM_WORLD, &n);
  try {
    if (count != 4) throw std::runtime_error("usage: alltoallv EXCHANGE BYTES TIMES");
    const std::vector<double> bytes = epsim::bench::read_doubles(argument[2]);
    if (epsim::bench::ranks_of(bytes) != n) throw std::runtime_error("there is another number of processes than ranks of the matrix");
    // What is sent does not matter, and SMPI's ranks share one process: all data of a rank go to one place.
    std::vector<char> data(static_cast<std::size_t>(*std::max_element(bytes.begin(), bytes.end())));
    MPI_Barrier(MPI_COMM_WORLD);
    const double begin = MPI_Wtime();
    const double mine = (std::string(argument[1]) == "pairwise" ? pairwise : direct)(self, n, bytes, data) - begin;
    std::vector<double> times(static_cast<std::size_t>(n));
    MPI_Gather(&mine, 1, MPI_DOUBLE, times.data(), 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    if (self == 0) epsim::bench::write_doubles(argument[3], times);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "alltoallv: %s\n", e.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return 0;
}
