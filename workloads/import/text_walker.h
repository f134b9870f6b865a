#pragma once
#include <cstddef>
#include <iterator>

namespace epsim {

/// Walks a text and tells how far the walk has come: the parser does not say where its values stand.
class TextWalker {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  TextWalker(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}
  reference operator*() const { return *at_; }
  TextWalker& operator++() {
    *furthest_ = ++at_;
    return *this;
  }
  TextWalker operator++(int) {
    const TextWalker before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const TextWalker& a, const TextWalker& b) { return a.at_ == b.at_; }
  friend bool operator!=(const TextWalker& a, const TextWalker& b) { return a.at_ != b.at_; }

 private:
  const char* at_;
  const char** furthest_;
};

}  // namespace epsim
