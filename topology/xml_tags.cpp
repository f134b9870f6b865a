#include "topology/xml_tags.h"

#include <fmt/format.h>

namespace epsim {
namespace {

constexpr std::size_t kMaxDepth = 16;
constexpr std::size_t kMaxTags = 8'000'000;

class Scanner {
 public:
  explicit Scanner(const std::shared_ptr<const SourceText>& source) : source_(source), text_(source->text) {}

  std::vector<XmlTag> scan() {
    if (const auto zero = text_.find('\0'); zero != std::string_view::npos) fail(zero, "is not XML: a byte of value 0");
    if (text_.starts_with("\xef\xbb\xbf")) at_ = 3;
    while (at_ < text_.size()) {
      const std::size_t begin = at_;
      if (text_[at_] != '<') {
        at_ = std::min(text_.find('<', at_), text_.size());
        if (const auto stray = text_.substr(begin, at_ - begin).find_first_not_of(" \t\r\n"); open_.empty() && stray != std::string_view::npos)
          fail(begin + stray, "is not XML: text outside of the root element");
      } else if (starts("<!--")) {
        skip_past("<!--", "-->", "comment");
      } else if (starts("<![CDATA[")) {
        if (open_.empty()) fail(begin, "is not XML: CDATA outside of the root element");
        skip_past("<![CDATA[", "]]>", "CDATA section");
      } else if (starts("<?")) {
        skip_past("<?", "?>", "processing instruction");
      } else if (starts("<!")) {
        fail(begin, "a DOCTYPE is not supported");
      } else if (starts("</")) {
        close();
      } else {
        open();
      }
    }
    if (!open_.empty())
      fail(tags_[static_cast<std::size_t>(open_.back())].offset,
           fmt::format("is not XML: <{}> is never closed", tags_[static_cast<std::size_t>(open_.back())].name));
    if (tags_.empty()) fail(0, "is not XML: there is no element");
    return std::move(tags_);
  }

 private:
  [[noreturn]] void fail(std::size_t offset, std::string message) const { throw InputError(locate(source_, offset), std::move(message)); }
  bool starts(std::string_view s) const { return text_.substr(at_).starts_with(s); }

  void skip_past(std::string_view start, std::string_view end, std::string_view what) {
    const std::size_t begin = at_, found = text_.find(end, at_ + start.size());
    if (found == std::string_view::npos) fail(begin, fmt::format("is not XML: this {} never ends", what));
    at_ = found + end.size();
  }

  void skip_space() { at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size()); }

  std::string name() {
    const std::size_t end = std::min(text_.find_first_of(" \t\r\n/<>=?!\"'&", at_), text_.size());
    if (end == at_) fail(at_, "is not XML: expected a name");
    std::string out(text_.substr(at_, end - at_));
    at_ = end;
    return out;
  }

  void open() {
    XmlTag tag;
    tag.offset = at_++;
    tag.name = name();
    if (open_.empty() && !tags_.empty()) fail(tag.offset, "is not XML: a second root element");
    if (open_.size() >= kMaxDepth) fail(tag.offset, fmt::format("nested deeper than {} levels", kMaxDepth));
    if (tags_.size() >= kMaxTags) fail(tag.offset, fmt::format("more than {} elements", kMaxTags));
    tag.parent = open_.empty() ? -1 : open_.back();
    while (true) {
      const std::size_t before = at_;
      skip_space();
      if (starts(">") || starts("/>")) break;
      if (at_ >= text_.size()) fail(tag.offset, fmt::format("is not XML: the tag <{}> never ends", tag.name));
      if (at_ == before) fail(at_, "is not XML: expected a space before an attribute");
      attribute(tag);
    }
    const bool empty = text_[at_] == '/';
    at_ += empty ? 2 : 1;
    if (!empty) open_.push_back(static_cast<int>(tags_.size()));
    tags_.push_back(std::move(tag));
  }

  void attribute(XmlTag& tag) {
    const std::size_t begin = at_;
    std::string key = name();
    if (tag.find(key)) fail(begin, fmt::format("is not XML: the attribute `{}` is given twice", key));
    skip_space();
    if (!starts("=")) fail(at_, fmt::format("is not XML: expected = after the attribute `{}`", key));
    ++at_;
    skip_space();
    if (!starts("\"") && !starts("'")) fail(at_, fmt::format("is not XML: expected the quoted value of the attribute `{}`", key));
    const std::size_t end = text_.find(text_[at_], at_ + 1);
    if (end == std::string_view::npos) fail(at_, fmt::format("is not XML: the value of the attribute `{}` never ends", key));
    std::string value(text_.substr(at_ + 1, end - at_ - 1));
    if (const auto angle = value.find('<'); angle != std::string::npos) fail(at_ + 1 + angle, "is not XML: < inside of an attribute");
    tag.attributes.emplace_back(std::move(key), std::move(value));
    at_ = end + 1;
  }

  void close() {
    const std::size_t begin = at_;
    at_ += 2;
    const std::string closed = name();
    skip_space();
    if (!starts(">")) fail(begin, fmt::format("is not XML: the tag </{}> never ends", closed));
    ++at_;
    if (open_.empty()) fail(begin, fmt::format("is not XML: </{}> closes nothing", closed));
    const std::string& expected = tags_[static_cast<std::size_t>(open_.back())].name;
    if (closed != expected) fail(begin, fmt::format("is not XML: expected </{}>", expected));
    open_.pop_back();
  }

  std::shared_ptr<const SourceText> source_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<int> open_;
  std::vector<XmlTag> tags_;
};

}  // namespace

const std::string* XmlTag::find(std::string_view attribute) const {
  for (const auto& [key, value] : attributes)
    if (key == attribute) return &value;
  return nullptr;
}

std::vector<XmlTag> xml_tags(const std::shared_ptr<const SourceText>& source) { return Scanner(source).scan(); }

}  // namespace epsim
