#pragma once
#include <cstdint>
#include <vector>

namespace epsim {

/// Memory for `count` values that a thread keeps, with a place of its own for each `Use` that may be under way at once. What lies in it is whatever was left there.
template <class Use, class T>
T* workspace(std::int64_t count) {
  thread_local std::vector<T> mine;
  if (mine.size() < static_cast<std::size_t>(count)) mine.resize(static_cast<std::size_t>(count));
  return mine.data();
}

}  // namespace epsim
