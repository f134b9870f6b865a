#pragma once
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"

namespace epsim {

/// An opening tag of an XML text.
struct XmlTag {
  std::string name;
  std::size_t offset = 0;
  int parent = -1;                                              ///< index of the enclosing element's tag; -1 for the root
  std::vector<std::pair<std::string, std::string>> attributes;  ///< as written, entities unresolved

  const std::string* find(std::string_view attribute) const;
};

/// The opening tags of an XML text in its order. Throws InputError at the first place that is not well-formed, at a DOCTYPE, and where elements nest deeper
/// than 16 levels.
std::vector<XmlTag> xml_tags(const std::shared_ptr<const SourceText>& source);

}  // namespace epsim
